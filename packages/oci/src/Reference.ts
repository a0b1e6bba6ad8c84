/** Image references: `[registry/]repository[:tag][@digest]`. */
import type { Digest } from "./Digest.ts"

export interface Reference {
  /** Host of the registry as containerd names it (`docker.io`, `[::1]:5000`, `registry.example:5000`). */
  readonly registry: string
  /** Repository inside the registry, with the `library/` of docker.io's short names. */
  readonly repository: string
  readonly tag?: string
  readonly digest?: Digest
}
