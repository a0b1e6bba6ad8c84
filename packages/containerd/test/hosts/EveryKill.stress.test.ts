/** `StartingStates.test.ts` with a kill at every change of every starting state; by itself it tries a twelfth. */
process.env["EVERY_KILL"] = "true"
await import("./StartingStates.test.ts")
