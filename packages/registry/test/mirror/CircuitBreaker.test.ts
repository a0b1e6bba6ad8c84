import { assert, describe, it } from "@effect/vitest"
import { Circuit } from "@spegel-ts/registry/internal/mirror/CircuitBreaker"

describe("Circuit", () => {
  it("opens after failures in a row, lets one probe through, and doubles its pause while probes fail", () => {
    const circuit = new Circuit({ failures: 3, pauseMillis: 1000 })
    circuit.failed(0)
    circuit.failed(0)
    circuit.succeeded()
    circuit.failed(0)
    circuit.failed(0)
    assert.isFalse(circuit.isOpen(0))
    assert.isTrue(circuit.failed(0))
    // From requests that began before.
    assert.isFalse(circuit.failed(0))
    assert.isTrue(circuit.isOpen(999))
    assert.isFalse(circuit.isOpen(1000))
    assert.isTrue(circuit.isOpen(1001))
    assert.isTrue(circuit.isOpen(1999))
    assert.isTrue(circuit.failed(1500))
    assert.isTrue(circuit.isOpen(3499))
    // A probe that never tells is followed by another.
    assert.isFalse(circuit.isOpen(3500))
    assert.isTrue(circuit.isOpen(5499))
    assert.isFalse(circuit.isOpen(5500))
    circuit.succeeded()
    assert.isFalse(circuit.isOpen(5500))
    assert.isFalse(circuit.failed(5500))
  })

  it("never opens with 0 failures", () => {
    const circuit = new Circuit({ failures: 0, pauseMillis: 1000 })
    for (let turn = 0; turn < 100; turn++) assert.isFalse(circuit.failed(turn))
    assert.isFalse(circuit.isOpen(100))
  })
})
