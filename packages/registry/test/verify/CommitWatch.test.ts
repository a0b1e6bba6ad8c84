import { assert, describe, it } from "@effect/vitest"
import {
  ContentNotFound,
  ContentStore,
  type Ingest,
  IngestState,
  StoreUnavailable
} from "@spegel-ts/content/ContentStore"
import * as MemoryStore from "@spegel-ts/content/MemoryStore"
import * as Digest from "@spegel-ts/oci/Digest"
import * as CommitWatch from "@spegel-ts/registry/internal/verify/CommitWatch"
import type { Verdict } from "@spegel-ts/registry/internal/verify/WatchedDownload"
import type { FileWriter } from "@spegel-ts/transfer/FileLease"
import { Effect, Exit, Option, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { FileHandle } from "node:fs/promises"
import { setImmediate } from "node:timers/promises"

const right = Buffer.alloc(1000, "right")
const wrong = Buffer.alloc(1000, "wrong")
const digest = Digest.ofBytes(right)
const size = right.length
const peer = (name: string) => ({ id: name, addresses: ["10.0.0.1"], servicePort: 5000 })
const [a, b] = [peer("a"), peer("b")] as const

/** A download of containerd, as the test moves it. */
class Download {
  state: IngestState = IngestState.InProgress({ written: 0, modified: 0 })
  writer: FileWriter = "open"
  bytes: Buffer = right
  hashed = 0
  bytesHashed = 0
  looks = 0
  opened = 0
  isOpen = false
  readonly descriptor: number
  readonly namespace: string

  constructor(descriptor: number, namespace: string) {
    this.descriptor = descriptor
    this.namespace = namespace
  }

  write(bytes: Buffer, written = size) {
    this.bytes = bytes
    this.state = IngestState.InProgress({ written, modified: 0 })
  }

  /** containerd has found it wrong, or its pull was cancelled. */
  remove() {
    const { state } = this
    this.state = IngestState.Deleted({ written: state._tag === "InProgress" ? state.written : 0 })
    this.writer = "none"
  }

  get ingest(): Option.Option<Ingest> {
    const { descriptor, namespace, state } = this
    return state._tag === "InProgress"
      ? Option.some({
        namespace,
        ref: `layer-${digest}`,
        digest,
        path: `/ingest/${descriptor}/data`,
        size,
        written: state.written
      })
      : Option.none()
  }
}

/** A store whose downloads the test moves, and what the watch says and does. */
const start = Effect.gen(function*() {
  const downloads: Array<Download> = []
  const discarded: Array<string> = []
  const said: Array<string> = []
  let isAway = false
  const away = new StoreUnavailable({ operation: "discard", hint: "containerd is away" })
  const memory = yield* ContentStore
  const commits = yield* CommitWatch.make((descriptor) => downloads[descriptor]?.writer ?? "unknown").pipe(
    Effect.provideService(ContentStore, {
      ...memory,
      inProgress: Stream.suspend(() => Stream.fromIterable(downloads.flatMap(({ ingest }) => Option.toArray(ingest)))),
      openIngest: ({ path }) => {
        const download = downloads.find(({ descriptor }) => path === `/ingest/${descriptor}/data`)
        return download === undefined
          ? Effect.fail(new ContentNotFound({ content: path }))
          : Effect.acquireRelease(
            Effect.sync(() => {
              download.opened++
              download.isOpen = true
              return {
                handle: { fd: download.descriptor } as FileHandle,
                state: Effect.sync(() => {
                  download.looks++
                  return download.state
                }),
                chunks: (start) => {
                  download.hashed++
                  const { state } = download
                  const end = state._tag === "InProgress" ? state.written : size
                  download.bytesHashed += end - start
                  return chunksOf(download.bytes.subarray(start, end))
                }
              }
            }),
            () => Effect.sync(() => download.isOpen = false)
          )
      },
      discard: ({ namespace, ref }) =>
        Effect.suspend(() => {
          if (isAway) return Effect.fail(away)
          discarded.push(`${namespace} ${ref}`)
          for (const download of downloads) {
            if (download.namespace === namespace && Option.isSome(download.ingest)) download.remove()
          }
          return Effect.void
        })
    })
  )
  const told = (verdict: Verdict) =>
    Effect.sync(() => {
      const liar = verdict._tag === "Wrong"
        ? `, liar ${Option.match(verdict.liar, { onNone: () => "unknown", onSome: ({ id }) => id })}`
        : ""
      said.push(`${verdict._tag} ${verdict.senders.map(({ id }) => id).join("+")}${liar}`)
    })
  const download = (namespace = "k8s.io") => {
    const download = new Download(downloads.length, namespace)
    downloads.push(download)
    return download
  }
  /** A relay that begins and goes on until the scope that it gives is closed. */
  const begin = Effect.fnUntraced(function*(first = 0, userAgent = "containerd/2.1.9") {
    const scope = yield* Scope.make()
    const relay = yield* Scope.provide(
      commits.begin({ digest, start: Option.some(first), userAgent, told }),
      scope
    )
    return { ...relay, end: Scope.close(scope, Exit.void) }
  })
  /** A relay of `[from, to)` from one peer, from its beginning to its end. */
  const relay = Effect.fnUntraced(function*(sender: typeof a, from = 0, to = size) {
    const { end, sent } = yield* begin(from)
    sent(sender, from, from)
    sent(sender, from, to)
    yield* end
  })
  return { commits, downloads, discarded, said, download, begin, relay, leave: (away: boolean) => isAway = away }
}).pipe(Effect.provide(MemoryStore.layer))

/** Lets time go by, with turns of the event loop for what is hashed. */
const pass = (millis: number) =>
  Effect.forEach(
    Array.from({ length: Math.ceil(millis / 50) }),
    () => Effect.andThen(TestClock.adjust("50 millis"), Effect.promise(() => setImmediate())),
    { discard: true }
  )

describe("CommitWatch", () => {
  it.effect("accepts a commit as proof, and hashes nothing", () =>
    Effect.gen(function*() {
      const { discarded, download, relay, said } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.write(right)
      yield* pass(20_000)
      assert.deepStrictEqual(said, [], "a slow fsync is not a failure")
      pulled.state = IngestState.Committed()
      yield* pass(300)
      assert.deepStrictEqual([said, discarded, pulled.hashed], [["Right a"], [], 0])
      assert.isFalse(pulled.isOpen)
    }))

  it.effect("hashes a download that containerd deleted, and blames the peer that sent all of it", () =>
    Effect.gen(function*() {
      const { discarded, download, relay, said } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.write(wrong)
      pulled.remove()
      yield* pass(300)
      assert.deepStrictEqual([said, discarded, pulled.hashed], [["Wrong a, liar a"], [], 1])
    }))

  it.effect("blames no peer for a cancelled download: right bytes, or not all of them", () =>
    Effect.gen(function*() {
      const { discarded, download, relay, said } = yield* start
      const complete = download()
      yield* relay(a)
      complete.write(right)
      complete.remove()
      yield* pass(300)
      const half = download()
      yield* relay(b)
      half.write(wrong, 500)
      half.remove()
      yield* pass(300)
      assert.deepStrictEqual([said, discarded, half.hashed], [["Right a"], [], 0])
    }))

  it.effect("discards a wrong download that was closed and not renamed, whether or not the next pull has it open", () =>
    Effect.gen(function*() {
      const { discarded, download, relay, said } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.write(wrong)
      yield* pass(5000)
      assert.deepStrictEqual([said, pulled.hashed], [[], 0], "containerd has it open")
      pulled.writer = "none"
      yield* pass(50)
      pulled.writer = "open"
      yield* pass(50)
      assert.deepStrictEqual(pulled.hashed, 0, "it may be being renamed")
      yield* pass(50)
      assert.deepStrictEqual(said, ["Wrong a, liar a"])
      assert.deepStrictEqual([discarded, pulled.hashed], [[`k8s.io layer-${digest}`], 1])
    }))

  it.effect("leaves a right one where it is, and hashes it once", () =>
    Effect.gen(function*() {
      const { discarded, download, relay, said } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.write(right)
      // A sweep comes by.
      yield* pass(35_000)
      pulled.writer = "none"
      yield* pass(120_000)
      assert.deepStrictEqual([said, discarded, pulled.hashed], [["Right a"], [], 1])
    }))

  it.effect("waits for a file to stand still where it is unknown whether it is open", () =>
    Effect.gen(function*() {
      const { discarded, download, relay } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.writer = "unknown"
      pulled.write(wrong)
      yield* pass(2000)
      pulled.state = IngestState.InProgress({ written: size, modified: 1 })
      yield* pass(2900)
      assert.deepStrictEqual([discarded, pulled.hashed], [[], 0])
      yield* pass(700)
      assert.deepStrictEqual(discarded, [`k8s.io layer-${digest}`])
    }))

  it.effect("discards only the file that was found wrong", () =>
    Effect.gen(function*() {
      const { discarded, download, leave, relay, said } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.write(wrong)
      pulled.writer = "none"
      leave(true)
      yield* pass(5000)
      assert.deepStrictEqual(said, ["Wrong a, liar a"])
      // containerd has collected it meanwhile, and the next pull has one of its own.
      pulled.remove()
      download()
      leave(false)
      yield* pass(5000)
      assert.deepStrictEqual(discarded, [])
    }))

  it.effect("discards a wrong download once containerd answers again", () =>
    Effect.gen(function*() {
      const { discarded, download, leave, relay } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.write(wrong)
      pulled.writer = "none"
      leave(true)
      yield* pass(10_000)
      leave(false)
      yield* pass(1500)
      assert.deepStrictEqual([discarded, pulled.hashed], [[`k8s.io layer-${digest}`], 1])
    }))

  it.effect("judges no peer by a file that somebody moved", () =>
    Effect.gen(function*() {
      const { discarded, download, relay, said } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.bytes = wrong
      pulled.state = IngestState.Moved()
      yield* pass(5000)
      assert.deepStrictEqual([said, discarded, pulled.hashed, pulled.isOpen], [[], [], 0, false])
    }))

  it.effect("waits for a rename that is under way", () =>
    Effect.gen(function*() {
      const { download, relay, said } = yield* start
      const pulled = download()
      yield* relay(a)
      pulled.state = IngestState.Moved()
      yield* pass(600)
      pulled.state = IngestState.Committed()
      yield* pass(300)
      assert.deepStrictEqual(said, ["Right a"])
    }))

  it.effect("blames no single peer where several sent parts, or the beginning came from elsewhere", () =>
    Effect.gen(function*() {
      const { download, relay, said } = yield* start
      const several = download()
      yield* relay(a, 0, 400)
      several.write(wrong, 400)
      yield* relay(b, 400)
      several.write(wrong)
      several.remove()
      yield* pass(300)
      const resumed = download()
      resumed.write(wrong, 400)
      yield* relay(b, 400)
      resumed.write(wrong)
      resumed.remove()
      yield* pass(300)
      assert.deepStrictEqual(said, ["Wrong a+b, liar unknown", "Wrong b, liar unknown"])
    }))

  it.effect("remembers the senders over a pull that was killed in between", () =>
    Effect.gen(function*() {
      const { discarded, download, relay, said } = yield* start
      const pulled = download()
      yield* relay(a, 0, 400)
      pulled.write(wrong, 400)
      pulled.writer = "none"
      yield* pass(600_000)
      assert.deepStrictEqual(said, [])
      assert.isBelow(pulled.looks, 150)
      pulled.writer = "open"
      yield* relay(a, 400)
      // The bytes sent may not be in the file yet.
      yield* pass(300)
      pulled.write(wrong)
      // It is hashed while containerd commits it.
      yield* pass(300)
      assert.deepStrictEqual(said, ["Wrong a, liar a"])
      assert.deepStrictEqual(discarded, [`k8s.io layer-${digest}`])
    }))

  it.effect("hashes a resumed download once, and leaves it to containerd where it is right", () =>
    Effect.gen(function*() {
      const { discarded, download, relay, said } = yield* start
      const committed = download()
      committed.write(right, 400)
      yield* relay(a, 400)
      committed.write(right, 700)
      yield* pass(1000)
      assert.strictEqual(committed.bytesHashed, 700)
      committed.write(right)
      yield* pass(20_000)
      assert.deepStrictEqual(said, [])
      assert.strictEqual(committed.bytesHashed, size)
      committed.state = IngestState.Committed()
      yield* pass(100)
      assert.deepStrictEqual(said, ["Right a"])
      const left = download()
      left.write(right, 400)
      yield* relay(b, 400)
      left.write(right)
      yield* pass(1000)
      left.writer = "none"
      yield* pass(300)
      assert.deepStrictEqual([said, discarded, left.bytesHashed], [["Right a", "Right b"], [], size])
    }))

  it.effect("judges parallel parts when all are there, and blames no single peer", () =>
    Effect.gen(function*() {
      const { begin, download, said } = yield* start
      const pulled = download()
      const first = yield* begin(0)
      first.sent(a, 0, 0)
      const second = yield* begin(500)
      second.sent(b, 500, 500)
      // Its client leaves when it has its part.
      first.sent(a, 0, 700)
      yield* first.end
      pulled.write(wrong, 600)
      yield* pass(5000)
      assert.deepStrictEqual(said, [])
      second.sent(b, 500, size)
      pulled.write(wrong)
      pulled.writer = "none"
      yield* pass(1600)
      assert.deepStrictEqual(said, ["Wrong a+b, liar unknown"], "the relay of the last part is open still")
      yield* second.end

      const alone = download()
      const one = yield* begin(0)
      one.sent(a, 0, 0)
      const other = yield* begin(500)
      other.sent(a, 500, size)
      one.sent(a, 0, size)
      yield* one.end
      yield* other.end
      alone.write(wrong)
      alone.remove()
      yield* pass(300)
      assert.deepStrictEqual(said.slice(1), ["Wrong a, liar unknown"])
    }))

  it.effect("watches no download where it is uncertain which one a relay is for", () =>
    Effect.gen(function*() {
      const { begin, download, said } = yield* start
      const spoil = (pulled: Download) => {
        pulled.write(wrong)
        pulled.remove()
      }
      const unwatched = Effect.fnUntraced(function*(first: number, userAgent?: string) {
        const { end, sent } = yield* begin(first, userAgent)
        sent(a, first, size)
        yield* end
      })
      // Nobody downloads it: `ctr content fetch-blob`.
      yield* unwatched(0)
      // Another client beside containerd, and a part that is not where the download ends.
      const one = download()
      yield* unwatched(0, "curl/8.0")
      yield* unwatched(300)
      spoil(one)
      yield* pass(300)
      // Two namespaces at once.
      const [two, three] = [download(), download("other")]
      yield* unwatched(0)
      spoil(two)
      spoil(three)
      yield* pass(40_000)
      assert.deepStrictEqual(said, [])
      assert.deepStrictEqual([one.hashed, two.hashed, three.hashed], [0, 0, 0])
    }))

  it.effect("tells another namespace's pull of the same blob apart", () =>
    Effect.gen(function*() {
      const { begin, download, said } = yield* start
      const own = download()
      const first = yield* begin(0)
      first.sent(a, 0, 0)
      const other = download("other")
      const early = yield* begin(0)
      early.sent(b, 0, 0)
      yield* early.end
      own.write(right, 400)
      const late = yield* begin(0)
      late.sent(b, 0, size)
      yield* late.end
      other.write(wrong)
      other.remove()
      first.sent(a, 0, size)
      yield* first.end
      own.state = IngestState.Committed()
      yield* pass(300)
      assert.deepStrictEqual(said, ["Right a"])
    }))

  it.effect("doubts the senders of a download that was given up when a pull begins anew, until it is hashed", () =>
    Effect.gen(function*() {
      const { commits, download, relay, said } = yield* start
      const pulled = download()
      yield* relay(a)
      yield* commits.doubt(digest)
      pulled.write(right)
      yield* commits.doubt(digest)
      assert.deepStrictEqual(said, [], "it is being committed, and another namespace asks")
      pulled.remove()
      yield* commits.doubt(digest)
      assert.deepStrictEqual(said, ["Doubted a"])
      yield* pass(300)
      assert.deepStrictEqual(said, ["Doubted a", "Right a"])
      yield* commits.doubt(digest)
      assert.deepStrictEqual(said.length, 2)
      const half = download()
      yield* relay(a)
      half.write(wrong, 500)
      half.remove()
      yield* commits.doubt(digest)
      assert.deepStrictEqual(said.length, 2)
    }))

  it.effect("forgets a request that was answered in another way", () =>
    Effect.gen(function*() {
      const { begin, download, said } = yield* start
      const pulled = download()
      const { end, size: known } = yield* begin(0)
      assert.deepStrictEqual(known, Option.some(size))
      assert.isTrue(pulled.isOpen)
      yield* end
      assert.isFalse(pulled.isOpen)
      pulled.write(wrong)
      pulled.remove()
      yield* pass(2000)
      assert.deepStrictEqual([said, pulled.hashed], [[], 0])
    }))

  it.effect("discards a download at once that was found wrong while it streamed", () =>
    Effect.gen(function*() {
      const { begin, discarded, download, leave, said } = yield* start
      const pulled = download()
      const { discard, end, sent } = yield* begin(0)
      sent(a, 0, size - 1)
      pulled.write(wrong, size - 1)
      yield* discard
      assert.deepStrictEqual(discarded, [`k8s.io layer-${digest}`])
      yield* end
      yield* pass(2000)
      assert.deepStrictEqual(said, [])
      // It does not fail where containerd cannot be asked.
      leave(true)
      download()
      yield* Effect.flatMap(begin(0), ({ discard }) => discard)
      assert.strictEqual(discarded.length, 1)
    }))

  it.effect("sweeps complete downloads that no relay was for, each once", () =>
    Effect.gen(function*() {
      const { discarded, download } = yield* start
      const [bad, good, half, busy] = [download("one"), download("two"), download("three"), download("four")]
      bad.write(wrong)
      good.write(right)
      half.write(wrong, 500)
      busy.write(wrong)
      for (const still of [bad, good, half]) still.writer = "none"
      yield* pass(29_000)
      assert.deepStrictEqual(discarded, [], "it began before they were there")
      yield* pass(4000)
      assert.deepStrictEqual(discarded, [])
      yield* pass(3000)
      assert.deepStrictEqual(discarded, [`one layer-${digest}`])
      yield* pass(300_000)
      assert.deepStrictEqual([bad.hashed, good.hashed, half.hashed, busy.hashed], [1, 1, 0, 0])
      assert.deepStrictEqual([bad.opened, good.opened, half.opened, busy.opened], [1, 1, 0, 1])
      busy.writer = "none"
      yield* pass(6000)
      assert.deepStrictEqual(discarded, [`one layer-${digest}`, `four layer-${digest}`])
    }), 60_000)
})

async function* chunksOf(bytes: Buffer) {
  yield bytes.subarray(0, 500)
  yield bytes.subarray(500)
}
