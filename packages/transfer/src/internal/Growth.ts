/**
 * The interval of looks at the end of a growing file. A look costs one system call; inotify would tell of each write, and
 * cost more.
 */
export const growthMillis = 10
