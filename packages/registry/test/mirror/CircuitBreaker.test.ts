import { assert, describe, it } from "@effect/vitest"
import { CircuitBreaker } from "@spegel-ts/registry/internal/mirror/CircuitBreaker"

describe("CircuitBreaker", () => {
  it("opens after failures in a row, lets one probe through, and doubles its pause while probes fail", () => {
    const breaker = new CircuitBreaker({ failures: 3, pauseMillis: 1000 })
    breaker.failed(0)
    breaker.failed(0)
    breaker.succeeded()
    breaker.failed(0)
    breaker.failed(0)
    assert.isFalse(breaker.isOpen(0))
    assert.isTrue(breaker.failed(0))
    // From requests that began before.
    assert.isFalse(breaker.failed(0))
    assert.isTrue(breaker.isOpen(999))
    assert.isFalse(breaker.isOpen(1000))
    assert.isTrue(breaker.isOpen(1001))
    assert.isTrue(breaker.isOpen(1999))
    assert.isTrue(breaker.failed(1500))
    assert.isTrue(breaker.isOpen(3499))
    // A probe that never tells is followed by another.
    assert.isFalse(breaker.isOpen(3500))
    assert.isTrue(breaker.isOpen(5499))
    assert.isFalse(breaker.isOpen(5500))
    breaker.succeeded()
    assert.isFalse(breaker.isOpen(5500))
    assert.isFalse(breaker.failed(5500))
  })

  it("never opens with 0 failures", () => {
    const breaker = new CircuitBreaker({ failures: 0, pauseMillis: 1000 })
    for (let turn = 0; turn < 100; turn++) assert.isFalse(breaker.failed(turn))
    assert.isFalse(breaker.isOpen(100))
  })
})
