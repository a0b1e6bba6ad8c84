/** `MirrorConfiguration.test.ts` with a kill at every change of every starting state; by itself it tries a quarter. */
process.env["EVERY_KILL"] = "true"
await import("./MirrorConfiguration.test.ts")
