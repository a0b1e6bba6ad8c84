/** Decides when to ask the kernel what its sockets hold: no more often than necessary, since an answer costs milliseconds. */

/** The shortest pause between two measurements, in milliseconds. */
const minPauseMillis = 5
/** A pause is at least this many times as long as the last measurement took. */
const pauseShare = 3

export interface Measurement<A> {
  readonly measure: () => A
  /** Called with each result. It may ask for the next measurement. */
  readonly use: (result: A) => void
}

export class MeasureTimer<A> {
  readonly #measurement: Measurement<A>
  #timer: NodeJS.Timeout | undefined
  #dueAt = Infinity
  #measuredAt = performance.now()
  #pauseMillis = minPauseMillis
  #closed = false

  constructor(measurement: Measurement<A>) {
    this.#measurement = measurement
  }

  /** Measures as soon as the cost of the last measurement allows. */
  soon(): void {
    this.within(this.#pauseMillis)
  }

  /** Measures this many milliseconds after the last measurement, unless one is due earlier. */
  within(millis: number): void {
    const dueAt = this.#measuredAt + millis
    if (this.#closed || dueAt >= this.#dueAt) return
    clearTimeout(this.#timer)
    this.#dueAt = dueAt
    this.#timer = setTimeout(() => this.#run(), Math.max(0, dueAt - performance.now())).unref()
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #run(): void {
    const begun = performance.now()
    const result = this.#measurement.measure()
    this.#measuredAt = performance.now()
    this.#pauseMillis = Math.max(minPauseMillis, pauseShare * (this.#measuredAt - begun))
    this.#dueAt = Infinity
    this.#measurement.use(result)
  }
}
