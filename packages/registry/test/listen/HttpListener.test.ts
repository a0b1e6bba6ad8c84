import { assert, describe, it } from "@effect/vitest"
import * as HttpListener from "@spegel-ts/registry/HttpListener"
import { eventually } from "@spegel-ts/testing/Eventually"
import { Deferred, Duration, Effect, Exit, Fiber, Latch, Option, Scope } from "effect"
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import type { Server } from "node:http"
import { connect } from "node:net"

const get = (port: number) => Effect.tryPromise((signal) => fetch(`http://127.0.0.2:${port}/`, { signal }))

/** Whether nobody takes connections any more. */
const refuses = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const socket = connect(port, "127.0.0.2", () => {
      socket.destroy()
      resume(Effect.succeed(false))
    }).on("error", () => resume(Effect.succeed(true)))
  })

const listen = (handler: HttpListener.Handler, grace: Duration.Duration) =>
  HttpListener.listen({ host: Option.some("127.0.0.2"), port: 0, handler, grace })

describe("HttpListener", () => {
  it.live("lets running requests finish when it stops, and takes no new ones", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const mayEnd = yield* Latch.make()
      const scope = yield* Scope.make()
      const { port } = yield* listen((_request, response) =>
        Deferred.succeed(started, undefined).pipe(
          Effect.andThen(mayEnd.await),
          Effect.andThen(Effect.sync(() => response.end("whole")))
        ), Duration.seconds(10)).pipe(Scope.provide(scope))

      const request = yield* Effect.forkChild(get(port))
      yield* Deferred.await(started)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* eventually(refuses(port))
      assert.isUndefined(closing.pollUnsafe())

      yield* mayEnd.open
      const response = yield* Fiber.join(request)
      assert.strictEqual(yield* Effect.promise(() => response.text()), "whole")
      yield* Fiber.join(closing)
    }))

  it.live("continues after it could not accept a connection", () =>
    Effect.gen(function*() {
      let failures = 0
      const { port } = yield* listen((request, response) =>
        Effect.sync(() => {
          const { server } = request.socket as unknown as { readonly server: Server }
          failures++
          server.emit("error", Object.assign(new Error("accept EMFILE"), { code: "EMFILE" }))
          response.end("whole")
        }), Duration.zero)
      for (let asked = 0; asked < 3; asked++) {
        const response = yield* get(port)
        assert.strictEqual(yield* Effect.promise(() => response.text()), "whole")
      }
      assert.strictEqual(failures, 3)
    }))

  it.live("cuts off what has not ended within the grace", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const scope = yield* Scope.make()
      const { port } = yield* listen(() =>
        Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        ), Duration.millis(50)).pipe(Scope.provide(scope))
      const request = yield* Effect.forkChild(Effect.flip(get(port)))
      yield* Deferred.await(started)
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.await(interrupted)
      yield* Fiber.join(request)
    }))

  it.live("interrupts a request whose client has gone", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const { port } = yield* listen(() =>
        Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        ), Duration.zero)
      const request = yield* Effect.forkChild(get(port))
      yield* Deferred.await(started)
      yield* Fiber.interrupt(request)
      yield* Deferred.await(interrupted)
    }))

  it.live("drops a request's body as it comes, before anyone answers", () =>
    Effect.gen(function*() {
      const ended = yield* Deferred.make<number>()
      const { port } = yield* listen((request, response) => {
        request.once("end", () => Deferred.doneUnsafe(ended, Effect.succeed(request.readableLength)))
        return Deferred.await(ended).pipe(Effect.andThen(Effect.sync(() => response.end("heard"))))
      }, Duration.zero)
      const response = yield* Effect.promise(() =>
        fetch(`http://127.0.0.2:${port}/`, { method: "PUT", body: new Uint8Array(32 * 1024 ** 2) })
      )
      assert.strictEqual(yield* Effect.promise(() => response.text()), "heard")
      assert.strictEqual(yield* Deferred.await(ended), 0)
    }))

  it.live("sends the answers of the turn in which it stops", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const stop = Effect.runForkWith(yield* Effect.context())
      const { port } = yield* listen((_request, response) => {
        setImmediate(() => response.end("answered"))
        stop(Scope.close(scope, Exit.void))
        return undefined
      }, Duration.seconds(10)).pipe(Scope.provide(scope))
      const response = yield* get(port)
      assert.strictEqual(yield* Effect.promise(() => response.text()), "answered")
    }))

  it.live("keeps idle connections for longer than containerd, which does for 30 s", () =>
    Effect.gen(function*() {
      const { port } = yield* listen((_request, response) => {
        response.end()
        return undefined
      }, Duration.zero)
      const { headers } = yield* get(port)
      // Node announces what it keeps to.
      assert.isAbove(Number(/^timeout=(\d+)$/.exec(headers.get("keep-alive") ?? "")?.[1]), 30)
    }))

  it.live("bounds how long a client may take to ask, and not how long an answer may take", () =>
    Effect.gen(function*() {
      // These limits show themselves only after minutes: what counts is what the server was told.
      const servers: Array<Server> = []
      const onListen = (message: unknown) => servers.push((message as { readonly server: Server }).server)
      yield* Effect.acquireRelease(
        Effect.sync(() => subscribe("tracing:net.server.listen:asyncEnd", onListen)),
        () => Effect.sync(() => unsubscribe("tracing:net.server.listen:asyncEnd", onListen))
      )
      yield* listen(() => Effect.void, Duration.zero)
      const [server, ...others] = servers
      assert.deepStrictEqual(others, [])
      assert.isAbove(server?.headersTimeout ?? 0, 0)
      assert.isAtMost(server?.headersTimeout ?? Infinity, 30_000)
      // A whole request may last as long as its answer.
      assert.strictEqual(server?.requestTimeout, 0)
      // A client may take nothing for a while: a busy disk keeps containerd from reading.
      assert.isAtLeast(server?.timeout ?? 0, 60_000)
      assert.strictEqual(server?.maxRequestsPerSocket, 0)
    }))

  it.live("says what is wrong with an address", () =>
    Effect.gen(function*() {
      const { port } = yield* listen(() => Effect.void, Duration.zero)
      const options = { host: Option.some("127.0.0.2"), port, handler: () => Effect.void, grace: Duration.zero }
      const taken = yield* Effect.flip(HttpListener.listen(options))
      assert.include(taken.message, `127.0.0.2:${port}: the port is in use`)
      const foreign = yield* Effect.flip(HttpListener.listen({ ...options, host: Option.some("192.0.2.1") }))
      assert.include(foreign.message, "this host does not have the address")
    }))
})
