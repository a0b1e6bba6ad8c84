import { assert, describe, it } from "@effect/vitest"
import { positionOf } from "@spegel-ts/router/internal/dht/Distance"
import { Membership } from "@spegel-ts/router/internal/dht/members/Membership"
import { copied, type Member } from "@spegel-ts/router/internal/dht/members/MemberTable"
import { type Message, MessageType } from "@spegel-ts/router/internal/dht/rpc/Message"
import { message, RequestFailed } from "@spegel-ts/router/internal/dht/rpc/Protocol"

const bytes = (text: string): Uint8Array => Buffer.from(text)

/** A node with one member, which answers within `answersIn` ms or not in time; queries are noted with their limits. */
const withMember = (roundTrip: number) => {
  const limits: Array<number> = []
  const state = { now: 1000, answersIn: Infinity }
  const membership = new Membership({
    self: { id: "self", idBytes: bytes("self") },
    servicePort: 5000,
    refreshMillis: 540_000,
    after: () => {},
    onNewcomer: () => {},
    environment: {
      now: () => state.now,
      uptime: () => state.now,
      random: () => 0.5,
      after: () => () => {},
      idText: (id) => Buffer.from(id).toString(),
      usable: (addresses) => addresses,
      keep: copied,
      siteOf: () => "one place"
    },
    transport: {
      request: (_member: Member, { type }: Message, timeoutMillis: number) => {
        // Pings stay without an answer, and without an end.
        if (type !== MessageType.getProviders) return new Promise(() => {})
        limits.push(timeoutMillis)
        if (state.answersIn > timeoutMillis) return Promise.reject(new RequestFailed("late", { unreachable: false }))
        state.now += state.answersIn
        return Promise.resolve(message(type, new Uint8Array()))
      },
      provide: () => Promise.resolve(),
      tell: () => {}
    }
  })
  const peer = { id: "peer", idBytes: bytes("peer"), position: positionOf(bytes("peer")), addresses: [bytes("there")] }
  const member = membership.members.heard(peer, state.now)?.member
  if (member === undefined) throw new Error("no member")
  member.roundTrip = roundTrip
  const query = () =>
    membership.query(member, message(MessageType.getProviders, bytes("key"))).then(() => true, () => false)
  return { limits, member, query, state }
}

describe("Membership", () => {
  it("gives a member four times what it usually needs, and twice as long after each late answer", async () => {
    const { limits, member, query, state } = withMember(20)
    for (let times = 0; times < 5; times++) assert.isFalse(await query())
    assert.deepStrictEqual(limits, [80, 160, 320, 400, 400])
    assert.isTrue(member.late)
    // So that one which has become slower for good is asked in vain a few times only.
    state.answersIn = 300
    assert.isTrue(await query())
    assert.isFalse(member.late)
  })

  it("gives no member less than 50 ms", async () => {
    const { limits, query, state } = withMember(1)
    state.answersIn = 1
    assert.isTrue(await query())
    assert.deepStrictEqual(limits, [50])
  })
})
