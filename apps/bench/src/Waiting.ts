/** Waits for real time. */
export const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** Waits until `done`, at most for the limit; gives the milliseconds. */
export const until = async (done: () => Promise<boolean>, limitMillis: number): Promise<number> => {
  const begun = performance.now()
  while (!await done()) {
    if (performance.now() - begun > limitMillis) return limitMillis
    await sleep(20)
  }
  return performance.now() - begun
}

/** Waits until `done`; gives the milliseconds. Fails with `failure` after the limit. */
export const untilDone = async (
  done: () => Promise<boolean>,
  limitMillis: number,
  failure: string
): Promise<number> => {
  const waited = await until(done, limitMillis)
  if (waited >= limitMillis) throw new Error(failure)
  return waited
}
