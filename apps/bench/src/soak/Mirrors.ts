/** The mirrors of the nodes: which release each runs, and how they are replaced, lost and brought back. */
import { ended, kill } from "@spegel-ts/testing/process/Subprocess"
import { Effect, Scope } from "effect"
import type { ChildProcess } from "node:child_process"
import { join } from "node:path"
import { type HerdNode, type MirrorOptions, ports } from "../herd/HerdNode.ts"
import * as Host from "../herd/Host.ts"

/** A program of mirrors, with its settings. */
export interface Release extends Pick<MirrorOptions, "flags" | "hasKey" | "program"> {}

export interface Running {
  readonly node: HerdNode
  readonly child: ChildProcess
}

/** A mirror takes no longer to stop. */
const stopTimeout = "30 seconds"

export class Mirrors {
  readonly nodes: ReadonlyArray<HerdNode>
  readonly #options: { readonly logs: string; readonly node: MirrorOptions["node"] }
  readonly #scope: Scope.Scope
  readonly #running = new Map<HerdNode, ChildProcess>()
  readonly #lost = new Set<HerdNode>()
  #starts = 0

  constructor(
    nodes: ReadonlyArray<HerdNode>,
    scope: Scope.Scope,
    options: { readonly logs: string; readonly node: MirrorOptions["node"] }
  ) {
    this.nodes = nodes
    this.#scope = scope
    this.#options = options
  }

  /** Those that run now. */
  get running(): ReadonlyArray<Running> {
    return [...this.#running].map(([node, child]) => ({ node, child }))
  }

  isLost(node: HerdNode): boolean {
    return this.#lost.has(node)
  }

  /** Starts a node's mirror and waits until it is ready. */
  start(node: HerdNode, release: Release) {
    const log = join(this.#options.logs, `${node.name}-${++this.#starts}.log`)
    const { node: nodeOptions } = this.#options
    return node.startMirror({ ...release, log, ...(nodeOptions === undefined ? {} : { node: nodeOptions }) }).pipe(
      Effect.provideService(Scope.Scope, this.#scope),
      Effect.tap((child) => Effect.sync(() => this.#running.set(node, child)))
    )
  }

  /** Replaces one mirror after another, as a DaemonSet does, with a pause in between. */
  roll(release: Release, pauseMillis: number) {
    return Effect.forEach(
      this.nodes,
      (node) =>
        this.stop(node).pipe(Effect.andThen(this.start(node, release)), Effect.andThen(Effect.sleep(pauseMillis))),
      {
        discard: true
      }
    )
  }

  /** Stops a mirror as the kubelet does; gives its exit code. */
  stop(node: HerdNode) {
    return Effect.suspend(() => {
      const child = this.#running.get(node)
      if (child === undefined) return Effect.succeed<number | null>(0)
      this.#running.delete(node)
      child.kill("SIGTERM")
      return Effect.timeoutOrElse(Effect.map(ended(child), () => child.exitCode), {
        duration: stopTimeout,
        orElse: () => Effect.die(new Error(`the mirror of ${node.name} did not stop within ${stopTimeout}`))
      })
    })
  }

  /** A mirror's process is gone at once. */
  kill(node: HerdNode) {
    return Effect.suspend(() => {
      const child = this.#running.get(node)
      this.#running.delete(node)
      return child === undefined ? Effect.void : kill(child)
    })
  }

  /** A mirror's process stands still for so many milliseconds. */
  freeze(node: HerdNode, millis: number) {
    return Effect.suspend(() => {
      const child = this.#running.get(node)
      child?.kill("SIGSTOP")
      return Effect.andThen(Effect.sleep(millis), Effect.sync(() => child?.kill("SIGCONT")))
    })
  }

  /** A node is gone at once: its link, its mirror, its containerd. */
  lose(node: HerdNode) {
    return Effect.suspend(() => {
      this.#lost.add(node)
      return node.unplug.pipe(Effect.andThen(this.kill(node)), Effect.andThen(node.containerd.kill))
    })
  }

  /** The node is back, with the disk that it had. */
  bringBack(node: HerdNode, release: Release) {
    return node.plug.pipe(
      Effect.andThen(node.containerd.restart),
      Effect.andThen(this.start(node, release)),
      Effect.tap(() => Effect.sync(() => this.#lost.delete(node)))
    )
  }
}

type Side = ReadonlyArray<HerdNode>

const across = (one: Side, other: Side, change: typeof Host.cut) =>
  Effect.forEach(
    [[one, other], [other, one]] as const,
    ([these, those]) =>
      Effect.forEach(these, ({ namespace }) => change(namespace, those.map(({ address }) => address)), {
        discard: true
      }),
    {
      discard: true
    }
  )

/** Fails unless the sides reach each other, or do not, as expected. */
const check = Effect.fnUntraced(function*([one]: Side, [other]: Side, expected: boolean) {
  if (one === undefined || other === undefined) return
  const reached = yield* Host.reaches(one.namespace, other.address, ports.registry)
  if (reached !== expected) {
    return yield* Effect.die(new Error(`${one.name} ${reached ? "reaches" : "does not reach"} ${other.name}`))
  }
})

/** Two parts of the network no longer reach each other; both reach the registry. */
export const partition = (one: Side, other: Side) =>
  Effect.andThen(across(one, other, Host.cut), check(one, other, false))

export const merge = (one: Side, other: Side) => Effect.andThen(across(one, other, Host.mend), check(one, other, true))
