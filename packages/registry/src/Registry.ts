/**
 * The HTTP face of the mirror: the pull part of the OCI distribution API (`/v2/`), `/livez` and `/readyz`.
 */
import { Context, type Effect } from "effect"
import type { HttpServerRequest, HttpServerResponse } from "effect/http"

export class Registry extends Context.Service<Registry, {
  /** Answers one request; every error is already an OCI error body. Interrupted when the client goes away. */
  readonly handler: Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    never,
    HttpServerRequest.HttpServerRequest
  >
}>()("@spegel-ts/registry/Registry") {}
