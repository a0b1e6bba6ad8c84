/** Time on the clock of this machine. */
export const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** Milliseconds until `done`; the limit where it never is. */
export const until = async (done: () => Promise<boolean>, limitMillis: number): Promise<number> => {
  const begun = performance.now()
  while (!await done()) {
    if (performance.now() - begun > limitMillis) return limitMillis
    await sleep(20)
  }
  return performance.now() - begun
}

/** Milliseconds until `done`; fails with `failure` where it is not done within the limit. */
export const untilDone = async (
  done: () => Promise<boolean>,
  limitMillis: number,
  failure: string
): Promise<number> => {
  const waited = await until(done, limitMillis)
  if (waited >= limitMillis) throw new Error(failure)
  return waited
}
