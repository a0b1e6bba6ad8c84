/** A stream whose other end is the test. */
export class FakeStream extends EventTarget {
  readonly sent: Array<Uint8Array> = []
  status = "open"
  writeStatus = "writable"

  send(data: Uint8Array): boolean {
    this.sent.push(data)
    return true
  }

  arrive(...bytes: ReadonlyArray<number | Uint8Array>): void {
    const data = Buffer.concat(bytes.map((part) => typeof part === "number" ? Uint8Array.of(part) : part))
    this.dispatchEvent(Object.assign(new Event("message"), { data }))
  }

  end(kind: "close" | "remoteCloseWrite"): void {
    this.dispatchEvent(new Event(kind))
  }

  abort(): void {
    this.status = "aborted"
    this.writeStatus = "closed"
    this.end("close")
  }

  close(): Promise<void> {
    this.writeStatus = "closed"
    return Promise.resolve()
  }
}
