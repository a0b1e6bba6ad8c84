import { assert, describe, it } from "@effect/vitest"
import {
  CircuitBreaker,
  CircuitBreakers,
  type FailedRequest,
  type PeerTime
} from "@spegel-ts/registry/internal/mirror/CircuitBreaker"

/** A request for a repository that was kept waiting by peers that had served before, from these addresses. */
const failure = (
  repository: string,
  addresses: ReadonlyArray<string>,
  peerTime: PeerTime = "usual"
): FailedRequest => ({ peerTime, repository, lostTime: true, addresses: new Set(addresses) })

const make = (failures: number) => new CircuitBreaker({ failures, pauseMillis: 1000 })

/** Opens it at the time 0. */
const open = (breaker: CircuitBreaker) => {
  breaker.failed(failure("one", ["a", "b"]), 0)
  breaker.failed(failure("two", ["a", "b"]), 0)
}

describe("CircuitBreaker", () => {
  it("opens after failures in a row, lets one probe through, and doubles its pause while probes fail", () => {
    const breaker = make(3)
    const fail = (repository: string, peerTime?: PeerTime) => failure(repository, ["a", "b"], peerTime)
    breaker.failed(fail("one"), 0)
    breaker.failed(fail("two"), 0)
    breaker.succeeded()
    breaker.failed(fail("one"), 0)
    breaker.failed(fail("two"), 0)
    assert.strictEqual(breaker.admit(0), "usual")
    assert.isTrue(breaker.failed(fail("one"), 0))
    // From requests that began before, or that gave peers little time.
    assert.isFalse(breaker.failed(fail("one"), 0))
    assert.isFalse(breaker.failed(fail("one", "little"), 0))
    assert.strictEqual(breaker.admit(999), "little")
    assert.strictEqual(breaker.admit(1000), "probe")
    assert.strictEqual(breaker.admit(1001), "little")
    assert.strictEqual(breaker.admit(1999), "little")
    assert.isTrue(breaker.failed(fail("one", "probe"), 1500))
    assert.strictEqual(breaker.admit(3499), "little")
    // A probe that never tells is followed by another.
    assert.strictEqual(breaker.admit(3500), "probe")
    assert.strictEqual(breaker.admit(5499), "little")
    assert.strictEqual(breaker.admit(5500), "probe")
    breaker.succeeded()
    assert.strictEqual(breaker.admit(5500), "usual")
    // The pause is as at first.
    for (const repository of ["one", "two", "three"]) breaker.failed(fail(repository), 6000)
    assert.strictEqual(breaker.admit(7000), "probe")
  })

  it("is listed while it is open, with the time until the next probe", () => {
    const breakers = new CircuitBreakers({ failures: 2, pauseMillis: 1000 })
    open(breakers.of("docker.io"))
    breakers.of("quay.io").admit(0)
    assert.deepStrictEqual(breakers.open(300), [{ registry: "docker.io", millis: 700 }])
    assert.deepStrictEqual(breakers.open(2000), [{ registry: "docker.io", millis: 0 }])
    breakers.of("docker.io").succeeded()
    assert.deepStrictEqual(breakers.open(2000), [])
  })

  it("never opens with 0 failures", () => {
    const breaker = make(0)
    for (let turn = 0; turn < 100; turn++) assert.isFalse(breaker.failed(failure(`${turn}`, ["a", "b"]), turn))
    assert.strictEqual(breaker.admit(100), "usual")
  })

  it("opens for no peer that never served, and does not count requests that only such peers kept waiting", () => {
    const breaker = make(2)
    for (let turn = 0; turn < 100; turn++) assert.isFalse(breaker.failed(failure(`${turn}`, []), turn))
    assert.isFalse(breaker.failed(failure("one", ["a"]), 100))
    assert.isFalse(breaker.failed(failure("two", []), 100))
    assert.strictEqual(breaker.admit(100), "usual")
    assert.isTrue(breaker.failed(failure("two", ["b"]), 100))
  })

  it("opens for no single address, however often it fails, and though another one fails now and then", () => {
    const breaker = make(5)
    for (let turn = 0; turn < 100; turn++) assert.isFalse(breaker.failed(failure(`${turn}`, ["liar"]), turn))
    for (const address of ["a", "liar", "liar", "b", "liar", "a", "liar", "liar"]) {
      assert.isFalse(breaker.failed(failure(address, [address]), 100), address)
    }
    assert.strictEqual(breaker.admit(100), "usual")
    // Three of the last five are others.
    assert.isFalse(breaker.failed(failure("one", ["a"]), 100))
    assert.isTrue(breaker.failed(failure("two", ["b"]), 100))
  })

  it("opens for no single repository, and with the setting 1 after two failures", () => {
    for (const failures of [1, 2]) {
      const breaker = make(failures)
      for (let turn = 0; turn < 100; turn++) assert.isFalse(breaker.failed(failure("one", ["a", "b"]), turn))
      assert.isTrue(breaker.failed(failure("two", ["a", "b"]), 100))
    }
  })

  it("is not kept open for longer by probes that only strangers kept waiting", () => {
    const breaker = make(2)
    open(breaker)
    for (const now of [1000, 2000, 3000]) {
      assert.strictEqual(breaker.admit(now), "probe")
      assert.isFalse(breaker.failed(failure("one", [], "probe"), now))
      assert.strictEqual(breaker.admit(now + 999), "little")
    }
  })

  it("lets the next request probe at once if a probe failed fast: nobody had the content", () => {
    const breaker = make(2)
    open(breaker)
    assert.strictEqual(breaker.admit(1000), "probe")
    breaker.failed({ ...failure("one", [], "probe"), lostTime: false }, 1001)
    assert.strictEqual(breaker.admit(1001), "probe")
    assert.strictEqual(breaker.admit(1001), "little")
  })

  it("closes at the first success, also of a request that gave peers little time", () => {
    const breaker = make(2)
    open(breaker)
    assert.strictEqual(breaker.admit(1), "little")
    breaker.succeeded()
    assert.strictEqual(breaker.admit(1), "usual")
    // A probe of the time before says nothing about now.
    assert.isFalse(breaker.failed(failure("one", ["a", "b"], "probe"), 2))
    assert.strictEqual(breaker.admit(2), "usual")
  })
})
