/**
 * Sends requests to members and concludes from answers and failures who is still there: pings silent members, evicts those
 * that do not answer, and retries evicted ones.
 */
import { type Message, MessageType } from "../rpc/Message.ts"
import { type Core, empty, isUnreachable, message } from "../rpc/Protocol.ts"
import { type Member, type MemberTable, roundTripOf } from "./MemberTable.ts"
import type { Neighbourhood } from "./Neighbourhood.ts"

export interface FailureDetectorOptions extends Core {
  readonly members: MemberTable
  readonly neighbourhood: Neighbourhood
  /** A member has answered. */
  readonly onHeard: (member: Member) => void
}

/** A member that was silent for this long is pinged. */
const silenceMillis = 15_000
const pingsAtOnce = 8
/** Between two pings of one round: a lookup must not wait behind a burst of them. */
const pingPauseMillis = 50
const retriesAtOnce = 8
/** Time limit of each of the two probes after a connection has ended. */
const probeMillis = 125
/** A busy node may answer a ping late; a lookup does not wait for it. */
const pingTimeoutMillis = 1000
/** Time limit of a lookup's request: four times the member's usual round trip, within these bounds. */
const minQueryMillis = 50
const maxQueryMillis = 400

const pingMessage = message(MessageType.ping, empty)

export class FailureDetector {
  /** How many members were evicted because they did not answer. */
  evictions = 0
  readonly #options: FailureDetectorOptions

  constructor(options: FailureDetectorOptions) {
    this.#options = options
  }

  // --- requests -----------------------------------------------------------------------------------------------

  /** Sends a request and draws the conclusions. Rejects as the transport does. */
  async request(member: Member, message: Message, timeoutMillis = pingTimeoutMillis): Promise<Message> {
    const sent = this.#now()
    try {
      const answer = await this.#options.transport.request(member, message, timeoutMillis)
      this.#answered(member, sent)
      return answer
    } catch (error) {
      this.failed(member, error)
      throw error
    }
  }

  /**
   * Sends a lookup's request, with a time limit of four times the member's usual round trip. A late member may just be
   * busy: it is pinged before it counts as silent.
   */
  async query(member: Member, query: Message): Promise<Message> {
    const sent = this.#now()
    const limit = Math.min(maxQueryMillis, Math.max(minQueryMillis, 4 * roundTripOf(member)))
    try {
      const answer = await this.#options.transport.request(member, query, limit)
      this.#answered(member, sent)
      return answer
    } catch (error) {
      // The next limit is longer: a member that has become slower would otherwise miss every one.
      member.roundTrip = Math.min(maxQueryMillis / 4, 2 * roundTripOf(member))
      if (isUnreachable(error)) this.evict(member)
      else if (!member.late) {
        member.late = true
        void this.ping(member)
      }
      throw error
    }
  }

  /** Pings a member, and a second time if it is silent: two timeouts in a row evict it. */
  async ping(member: Member): Promise<void> {
    const once = () => this.request(member, pingMessage)
    await once().catch(() => this.#isMember(member) ? once() : undefined).catch(() => undefined)
  }

  /** Records that a member did not answer. Two timeouts in a row evict it, a refused connection at once. */
  failed(member: Member, error: unknown): void {
    member.timeouts++
    member.late = true
    if (isUnreachable(error) || member.timeouts >= 2) this.evict(member)
  }

  /** Evicts a member that does not answer. Unless `retry` is false, it is retried later. */
  evict(member: Member, options = { retry: true }): void {
    if (!this.#isMember(member)) return
    this.evictions++
    this.#options.members.evict(member.id, this.#now(), options)
  }

  #answered(member: Member, sent: number): void {
    const took = this.#now() - sent
    member.roundTrip = member.roundTrip === undefined ? took : 0.8 * member.roundTrip + 0.2 * took
    member.timeouts = 0
    member.late = false
    this.#options.onHeard(member)
  }

  // --- monitoring ---------------------------------------------------------------------------------------------

  /** The connection to a peer has ended. It is evicted unless it announced that, or answers one of two probes. */
  disconnected(id: string): void {
    const member = this.#options.members.get(id)
    if (member === undefined || member.resting) return
    // Until the probes are over, lookups prefer other members.
    member.late = true
    const probe = () => this.#options.transport.request(member, pingMessage, probeMillis)
    void probe()
      .catch((error: unknown) => isUnreachable(error) ? Promise.reject(error) : probe())
      .then(() => {
        member.late = false
        this.#options.onHeard(member)
      }, () => this.evict(member))
  }

  /** Pings silent members and retries some of the evicted. After a suspension (`awoke`) all members count as silent. */
  check(awoke: boolean): void {
    const { after, members, neighbourhood } = this.#options
    const now = this.#now()
    const silent = neighbourhood.monitored().filter(({ lastHeard, late }) =>
      lastHeard > 0 && (awoke || late || now - lastHeard > silenceMillis)
    )
    const due = [...silent, ...members.dueForRetry(now, retriesAtOnce)]
    const pingOneByOne = async () => {
      for (let member = due.pop(); member !== undefined; member = due.pop()) {
        await this.ping(member)
        await new Promise<void>((resolve) => after(pingPauseMillis, resolve))
      }
    }
    const atOnce = Math.min(pingsAtOnce, due.length)
    for (let turn = 0; turn < atOnce; turn++) {
      after(turn * pingPauseMillis / pingsAtOnce, () => void pingOneByOne())
    }
  }

  #isMember(member: Member): boolean {
    return this.#options.members.get(member.id) === member
  }

  #now(): number {
    return this.#options.environment.now()
  }
}
