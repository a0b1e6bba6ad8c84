import { Data, Runtime } from "effect"

/** Settings do not fit together, or one is missing that another needs; the command does not start. */
export class SettingsInvalid extends Data.TaggedError("SettingsInvalid")<{
  /** The flag to change, without the dashes. */
  readonly flag: string
  readonly reason: string
}> {
  override get message() {
    return `--${this.flag}: ${this.reason}`
  }
  /** That of a usage error. */
  override readonly [Runtime.errorExitCode] = 2
}
