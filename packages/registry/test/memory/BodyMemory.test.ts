import { assert, describe, it } from "@effect/vitest"
import { BodyMemory } from "@spegel-ts/registry/internal/memory/BodyMemory"
import { reserveOf } from "@spegel-ts/registry/internal/memory/BodyReserve"
import type { SocketQueue } from "@spegel-ts/registry/internal/memory/SocketQueues"
import { Progress } from "@spegel-ts/transfer/Progress"
import { Effect, Exit, Fiber, Scope } from "effect"
import { EventEmitter } from "node:events"
import type { Socket } from "node:net"
import { vi } from "vitest"

const kib = 1024
const mib = 1024 * kib

/** A connection to a client that takes what it is told to. */
class Client extends EventEmitter {
  readonly localPort = 5000
  bytesWritten = 0
  taken = 0
  destroyed = false
  readonly remoteAddress: string
  readonly remotePort: number
  constructor(remoteAddress: string, remotePort: number) {
    super()
    this.remoteAddress = remoteAddress
    this.remotePort = remotePort
  }
  destroy() {
    this.destroyed = true
    this.emit("close")
  }
  get socket(): Socket {
    return this as unknown as Socket
  }
  get unsent(): number {
    return this.bytesWritten - this.taken
  }
}

/** A kernel that tells the truth, or nothing. */
const setup = (options: { readonly budget: number; readonly tells?: boolean }) => {
  const clients: Array<Client> = []
  const apart: Array<SocketQueue> = []
  let asked = 0
  const memory = new BodyMemory({
    budget: options.budget,
    reserve: () => reserveOf("portable"),
    maxUnsent: 4 * mib,
    queues: () => {
      asked++
      return options.tells === false ? undefined : [
        ...apart,
        ...clients.map(({ localPort, remoteAddress, remotePort, unsent }) => ({
          localPort,
          address: remoteAddress.replace("::ffff:", ""),
          port: remotePort,
          unsent,
          unread: 0
        }))
      ]
    }
  })
  const connect = (address: string) => {
    const client = new Client(address, 10_000 + clients.length)
    clients.push(client)
    return client
  }
  /** Sends what there is room for at once; gives how much that was. */
  const fill = (client: Client, chunk = 64 * kib, most = 64 * mib) => {
    const before = client.bytesWritten
    while (client.bytesWritten - before < most && client.unsent < 4 * mib && memory.hasRoom(client.socket, chunk)) {
      client.bytesWritten += chunk
    }
    return client.bytesWritten - before
  }
  const unsent = () => clients.reduce((sum, client) => sum + client.unsent, 0)
  return { apart, asked: () => asked, clients, connect, fill, memory, unsent }
}

const admitted = (memory: BodyMemory, client: Client) => memory.admit(client.socket, "file")
const settled = Effect.sleep("50 millis")

/** A monotonic clock that can be set forward, by milliseconds, for what looks at it and does not wait for it. */
const settableClock = Effect.gen(function*() {
  const now = performance.now.bind(performance)
  let passed = 0
  yield* Effect.acquireRelease(
    Effect.sync(() => vi.spyOn(performance, "now").mockImplementation(() => now() + passed)),
    (clock) => Effect.sync(() => clock.mockRestore())
  )
  return (millis: number) => {
    passed += millis
  }
})

describe("BodyMemory", () => {
  it.live("leaves half of the budget free where one client takes all it gets", () =>
    Effect.gen(function*() {
      const { connect, fill, memory, unsent } = setup({ budget: 96 * mib })
      const stalled = Array.from({ length: 100 }, () => connect("192.0.2.1"))
      // Those that come late find memory to move, although those before took all they got.
      for (const client of stalled) {
        assert.isTrue(yield* admitted(memory, client))
        fill(client)
        assert.isAtLeast(client.unsent, 64 * kib)
      }
      yield* settled
      for (const client of stalled) fill(client)
      assert.isAtMost(memory.used, 48 * mib)
      assert.isAtMost(unsent() + 100 * 64 * kib, 48 * mib)
      assert.isAbove(unsent(), 32 * mib)
      const honest = Array.from({ length: 4 }, () => connect("192.0.2.2"))
      for (const client of honest) {
        assert.isTrue(yield* admitted(memory, client))
        assert.strictEqual(fill(client), 4 * mib)
      }
    }).pipe(Effect.scoped))

  it.live("is never exceeded, and always has some for the next client", () =>
    Effect.gen(function*() {
      const { connect, fill, memory, unsent } = setup({ budget: 96 * mib })
      for (let address = 1; address <= 40; address++) {
        for (let body = 0; body < 3; body++) {
          const client = connect(`192.0.2.${address}`)
          assert.isTrue(yield* admitted(memory, client))
          fill(client)
        }
      }
      yield* settled
      assert.isAtMost(memory.used, 96 * mib)
      assert.isAtMost(unsent() + 120 * 64 * kib, 96 * mib)
      const honest = connect("198.51.100.1")
      assert.isTrue(yield* admitted(memory, honest))
      assert.isAtLeast(fill(honest), 64 * kib)
    }).pipe(Effect.scoped))

  it.live("lets each client that keeps reading continue, whatever the others hold", () =>
    Effect.gen(function*() {
      const { connect, fill, memory } = setup({ budget: 8 * mib })
      const clients = Array.from({ length: 9 }, () => connect("192.0.2.1"))
      for (const client of clients) {
        yield* admitted(memory, client)
        fill(client)
      }
      const moving = clients[7]
      if (moving === undefined) return assert.fail()
      const first = moving.bytesWritten
      const sent = () => (moving.bytesWritten - first) / (64 * kib)
      const go = () => {
        moving.taken = moving.bytesWritten
        moving.bytesWritten += 64 * kib
        if (sent() < 20) memory.whenRoom(moving.socket, 64 * kib, go)
      }
      memory.whenRoom(moving.socket, 64 * kib, go)
      for (let turn = 0; turn < 200 && sent() < 20; turn++) {
        moving.taken = moving.bytesWritten
        yield* Effect.sleep("20 millis")
      }
      assert.strictEqual(sent(), 20)
    }).pipe(Effect.scoped))

  it.live("refuses bodies beyond a client's share after a second, and admits them when others have gone", () =>
    Effect.gen(function*() {
      const { connect, memory } = setup({ budget: 8 * mib })
      const scopes: Array<Scope.Closeable> = []
      const ask = (address: string) =>
        Effect.gen(function*() {
          const scope = yield* Scope.make()
          scopes.push(scope)
          return yield* Scope.provide(admitted(memory, connect(address)), scope)
        })
      for (let body = 0; body < 13; body++) assert.isTrue(yield* ask("192.0.2.1"))
      assert.isFalse(yield* ask("192.0.2.1"))
      assert.isTrue(yield* ask("::ffff:192.0.2.2"))
      for (const scope of scopes) yield* Scope.close(scope, Exit.void)
      assert.strictEqual(memory.used, 0)
      assert.isTrue(yield* ask("192.0.2.1"))
    }))

  it.live("ends the body stalled for half a minute, of the client that uses most, when another finds no memory", () =>
    Effect.gen(function*() {
      const pass = yield* settableClock
      const { connect, memory } = setup({ budget: 8 * mib })
      const stalled = Array.from({ length: 12 }, () => connect("192.0.2.1"))
      const other = connect("192.0.2.2")
      for (const client of [other, ...stalled]) assert.isTrue(yield* admitted(memory, client))
      const ended = () => [...stalled, other].filter(({ destroyed }) => destroyed)
      pass(25_000)
      assert.isFalse(yield* admitted(memory, connect("192.0.2.1")))
      assert.deepStrictEqual(ended(), [])
      for (const client of stalled.slice(1)) client.bytesWritten = client.taken = 1
      pass(25_000)
      assert.isFalse(yield* admitted(memory, connect("192.0.2.1")))
      assert.deepStrictEqual(ended(), stalled.slice(0, 1))
      assert.isTrue(yield* admitted(memory, connect("192.0.2.1")))
    }).pipe(Effect.scoped))

  it.live("ends bodies stalled for 2 s when more is in use than all may have", () =>
    Effect.gen(function*() {
      const pass = yield* settableClock
      const { apart, connect, fill, memory } = setup({ budget: 8 * mib })
      const [stalled, moving] = [connect("192.0.2.1"), connect("192.0.2.2")]
      for (const client of [stalled, moving]) {
        assert.isTrue(yield* admitted(memory, client))
        fill(client)
      }
      // The kernel is not being asked any more: time that passes meanwhile would count as what the answer took.
      yield* settled
      pass(3000)
      moving.taken = moving.bytesWritten
      memory.whenRoom(stalled.socket, 8 * mib, () => {})
      yield* settled
      assert.isFalse(stalled.destroyed)
      // Connections that are gone here still hold memory of the kernel.
      apart.push({ localPort: 5000, address: "192.0.2.3", port: 1, unsent: 8 * mib, unread: 0 })
      yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => stalled.destroyed, times: 1000 })
      assert.isTrue(stalled.destroyed)
      assert.isFalse(moving.destroyed)
    }).pipe(Effect.scoped))

  it.live("gives all connections of an address one share, however they come and go", () =>
    Effect.gen(function*() {
      const { connect, memory } = setup({ budget: 8 * mib })
      const [first, second] = [connect("192.0.2.1"), connect("192.0.2.1")]
      for (const { socket } of [first, second]) assert.isTrue(memory.hasRoom(socket, 1))
      first.destroy()
      for (let body = 0; body < 13; body++) assert.isTrue(yield* admitted(memory, second))
      assert.isFalse(yield* admitted(memory, connect("192.0.2.1")))
    }).pipe(Effect.scoped))

  it.live("keeps nothing for a client that goes away while it waits", () =>
    Effect.gen(function*() {
      const { connect, memory } = setup({ budget: 8 * mib })
      yield* Effect.scoped(Effect.gen(function*() {
        for (let body = 0; body < 13; body++) yield* admitted(memory, connect("192.0.2.1"))
        const waiting = connect("192.0.2.1")
        const waits = yield* Effect.forkChild(admitted(memory, waiting))
        yield* Effect.sleep("20 millis")
        waiting.destroy()
        assert.isFalse(yield* Fiber.join(waits))
      }))
      assert.strictEqual(memory.used, 0)
    }))

  it.live("counts bytes still on their way to clients that have gone, and bytes from peers", () =>
    Effect.gen(function*() {
      const { apart, connect, fill, memory } = setup({ budget: 8 * mib })
      const client = connect("192.0.2.1")
      yield* admitted(memory, client)
      fill(client)
      const { unsent } = client
      client.destroy()
      assert.isAtLeast(memory.used, unsent)
      // Its share is used up by what the kernel still holds, also for its next connection.
      const again = connect("192.0.2.1")
      again.bytesWritten = again.taken = 64 * kib
      assert.isFalse(memory.hasRoom(again.socket, 64 * kib))
      yield* memory.sending(again.socket, new Progress(), { receivingPort: 40_000 })
      apart.push({ localPort: 40_000, address: "192.0.2.9", port: 5000, unsent: 0, unread: 5 * mib })
      client.taken = client.bytesWritten
      yield* Effect.callback<void>((resume) => memory.whenRoom(again.socket, 1, () => resume(Effect.void)))
      assert.isAtLeast(memory.used, 5 * mib)
      assert.isBelow(memory.used, 5 * mib + unsent)
    }).pipe(Effect.scoped))

  it.live("does not slow a fast client down to a piece a measurement where peers fill the bound", () =>
    Effect.gen(function*() {
      const { apart, asked, connect, memory } = setup({ budget: 8 * mib })
      const client = connect("192.0.2.1")
      yield* admitted(memory, client)
      yield* memory.sending(client.socket, new Progress(), { receivingPort: 40_000 })
      apart.push({ localPort: 40_000, address: "192.0.2.9", port: 5000, unsent: 0, unread: 8 * mib })
      let measurements = 0
      const sending = Effect.callback<void>((resume) => {
        // The client takes everything as it comes, which the next measurement shows.
        const go = () => {
          if (measurements === 0 && memory.used > 6 * mib) measurements = asked()
          client.bytesWritten += 64 * kib
          client.taken = client.bytesWritten
          if (client.bytesWritten >= 16 * mib) return resume(Effect.void)
          if (memory.hasRoom(client.socket, 64 * kib)) setImmediate(go)
          else memory.whenRoom(client.socket, 64 * kib, go)
        }
        go()
      })
      yield* sending
      assert.isAbove(measurements, 0, "the bound was never reached")
      assert.isFalse(client.destroyed)
      assert.isAtMost(asked() - measurements, 64)
    }).pipe(Effect.scoped))

  it.live("leaves no timer behind, after a body that waited and after it is closed", () =>
    Effect.gen(function*() {
      const { connect, fill, memory } = setup({ budget: 8 * mib })
      const timers = () => process.getActiveResourcesInfo().filter((resource) => resource === "Timeout").length
      const before = timers()
      const waits = yield* Effect.scoped(Effect.gen(function*() {
        for (let body = 0; body < 13; body++) yield* admitted(memory, connect("192.0.2.1"))
        const waits = yield* Effect.forkDetach(Effect.scoped(admitted(memory, connect("192.0.2.1"))))
        yield* Effect.yieldNow
        assert.isAbove(timers(), before)
        return waits
      }))
      assert.isTrue(yield* Fiber.join(waits))
      assert.strictEqual(timers(), before)

      const client = connect("192.0.2.1")
      fill(client)
      memory.whenRoom(client.socket, 64 * kib, () => assert.fail("it has room"))
      memory.close()
      assert.strictEqual(timers(), before)
    }))

  it.live("stops asking the kernel once it is closed", () =>
    Effect.gen(function*() {
      const { asked, connect, fill, memory } = setup({ budget: 8 * mib })
      const client = connect("192.0.2.1")
      memory.close()
      fill(client)
      memory.whenRoom(client.socket, 64 * kib, () => assert.fail("it has room"))
      yield* settled
      assert.strictEqual(asked(), 0)
    }))

  it.live("asks the kernel only when it comes near a bound", () =>
    Effect.gen(function*() {
      const { asked, connect, fill, memory } = setup({ budget: 96 * mib })
      for (let body = 0; body < 8; body++) {
        const client = connect("192.0.2.1")
        yield* admitted(memory, client)
        fill(client)
      }
      assert.strictEqual(asked(), 0)
    }).pipe(Effect.scoped))

  it.live("bounds only reservations if the kernel does not tell", () =>
    Effect.gen(function*() {
      const { connect, fill, memory } = setup({ budget: 8 * mib, tells: false })
      const clients = Array.from({ length: 9 }, () => connect("192.0.2.1"))
      for (const client of clients) assert.isTrue(yield* admitted(memory, client))
      for (const client of clients) {
        for (let turn = 0; turn < 500 && client.unsent < 4 * mib; turn++) {
          if (fill(client) === 0) memory.whenRoom(client.socket, 64 * kib, () => {})
          yield* Effect.sleep("10 millis")
        }
        assert.strictEqual(client.unsent, 4 * mib)
      }
    }).pipe(Effect.scoped))
})
