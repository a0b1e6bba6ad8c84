/**
 * Finds the type of a manifest by the keys at its top level. We follow Go's encoding/json, with which containerd reads it:
 * keys match in any case, the last of several counts, null sets no string, a byte order mark is an error.
 *
 * We skip what lies deeper, so a large manifest costs one pass over its bytes. We do not notice broken JSON there:
 * containerd refuses it, whoever sends it.
 */
import { Option } from "effect"
import * as JsonField from "./JsonField.ts"
import * as MediaType from "./MediaType.ts"

/** The fields that containerd checks before it believes the media type of a document (`validateMediaType`). */
export interface ManifestShape {
  /** Its field `mediaType`, which may be any text; empty if it has none. */
  readonly mediaType: string
  /** It has `config` or `layers`, even if null: it is not an index. */
  readonly hasImage: boolean
  /** It has `manifests`, even if null: it is not the manifest of one image. */
  readonly hasIndex: boolean
  /** The type that its fields suggest if it has no `mediaType`. */
  readonly suggested: Option.Option<string>
}

const fieldNames = ["mediaType", "config", "layers", "manifests", "fsLayers"] as const
type Field = (typeof fieldNames)[number]

const fieldOf: ReadonlyMap<string, Field> = new Map(fieldNames.map((name) => [JsonField.fold(name), name]))

/** In bytes. No known key or media type is longer, even with each letter escaped. */
const maxCaptured = 512

/** A manifest has less than ten keys at its top level. One with more than this is left to other hosts. */
const maxKeys = 10_000

const byteOf = (character: string) => character.charCodeAt(0)
const [quote, backslash, colon, comma, nullStart] = [byteOf("\""), byteOf("\\"), byteOf(":"), byteOf(","), byteOf("n")]
const [openBrace, closeBrace, openBracket, closeBracket] = [byteOf("{"), byteOf("}"), byteOf("["), byteOf("]")]
const isSpace = (byte: number) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

/** Reads one document piece by piece. */
export class ManifestReader {
  #progress: "before" | "within" | "after" | "refused" = "before"
  #depth = 0
  /** The token expected next at the top level; `rest` is the value after its first byte. */
  #expected: "key" | "value" | "rest" = "key"
  #field: Field | undefined
  #inString = false
  #escaped = false
  /** Bytes of the string being read, if it may matter. */
  #captured: Array<number> | undefined
  #mediaType = ""
  #keys = 0
  /** The first byte of each known field's last value. */
  readonly #values = new Map<Field, number>()

  /** Takes the next bytes. */
  push(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length && this.#progress !== "refused") {
      if (this.#inString) at = this.#passString(bytes, at)
      else if (this.#depth > 1) at = this.#passNested(bytes, at)
      else {
        const byte = bytes[at++] ?? 0
        if (!isSpace(byte)) this.#take(byte)
      }
    }
  }

  /** Whether it is not a manifest, whatever follows. */
  get refused(): boolean {
    return this.#progress === "refused"
  }

  /** The shape of all bytes; none if they are not a JSON object, or one that containerd never takes for a manifest. */
  end(): Option.Option<ManifestShape> {
    // Schema 1 has fsLayers. containerd converts or refuses it, but never keeps it.
    if (this.#progress !== "after" || this.#values.has("fsLayers")) return Option.none()
    const hasImage = this.#values.has("config") || this.#values.has("layers")
    const hasIndex = this.#values.has("manifests")
    return Option.some({ mediaType: this.#mediaType, hasImage, hasIndex, suggested: this.#suggested() })
  }

  #suggested(): Option.Option<string> {
    const [config, layers, manifests] = [
      this.#values.get("config"),
      this.#values.get("layers"),
      this.#values.get("manifests")
    ]
    if (manifests === openBracket && config === undefined && layers === undefined) {
      return Option.some(MediaType.imageIndex)
    }
    // An image's configuration has a `config` as well, but no `layers`.
    return config === openBrace && (layers === openBracket || layers === nullStart) && manifests === undefined
      ? Option.some(MediaType.imageManifest)
      : Option.none()
  }

  /** A byte outside of strings, at the top level or around the object. */
  #take(byte: number): void {
    if (this.#progress !== "within") {
      const begins = this.#progress === "before" && byte === openBrace
      this.#progress = begins ? "within" : "refused"
      this.#depth = 1
      return
    }
    if (byte === closeBrace) this.#progress = "after"
    else if (byte === colon) this.#expected = "value"
    else if (byte === comma) this.#expected = "key"
    else {
      if (byte === quote) this.#beginString()
      else if (byte === openBrace || byte === openBracket) this.#depth++
      if (this.#expected === "value") this.#beginValue(byte)
    }
  }

  #beginValue(byte: number): void {
    this.#expected = "rest"
    const field = this.#field
    if (field !== undefined) this.#values.set(field, byte)
    // Null does not change an earlier `mediaType`.
    if (field === "mediaType" && byte !== quote && byte !== nullStart) this.#progress = "refused"
  }

  #beginString(): void {
    this.#inString = true
    if (this.#expected === "key" || (this.#expected === "value" && this.#field === "mediaType")) this.#captured = []
  }

  #endString(): void {
    this.#inString = false
    const captured = this.#captured
    this.#captured = undefined
    if (captured === undefined) return
    const text = textOf(captured)
    if (text === undefined) this.#progress = "refused"
    else if (this.#expected === "key") {
      this.#field = fieldOf.get(JsonField.fold(text))
      if (++this.#keys > maxKeys) this.#progress = "refused"
    } else this.#mediaType = text
  }

  #passString(bytes: Uint8Array, from: number): number {
    let at = from
    let escaped = this.#escaped
    let ended = false
    while (at < bytes.length && !ended) {
      const byte = bytes[at++]
      if (escaped) escaped = false
      else if (byte === backslash) escaped = true
      else if (byte === quote) ended = true
    }
    this.#escaped = escaped
    const captured = this.#captured
    if (captured !== undefined) {
      // One byte more than the limit, to tell a long string from a short one with the same beginning.
      const wanted = maxCaptured + 1 - captured.length
      captured.push(...bytes.subarray(from, Math.min(ended ? at - 1 : at, from + wanted)))
    }
    if (ended) this.#endString()
    return at
  }

  #passNested(bytes: Uint8Array, from: number): number {
    let at = from
    let depth = this.#depth
    while (at < bytes.length && depth > 1) {
      const byte = bytes[at++]
      if (byte === quote) {
        this.#inString = true
        break
      }
      if (byte === openBrace || byte === openBracket) depth++
      else if (byte === closeBrace || byte === closeBracket) depth--
    }
    this.#depth = depth
    return at
  }
}

/** The text of a JSON string, from the bytes between its quotes; undefined if they are not valid. */
const textOf = (captured: ReadonlyArray<number>): string | undefined => {
  // Too long for any known key or type.
  if (captured.length > maxCaptured) return "..."
  try {
    return String(JSON.parse(`"${Buffer.from(captured).toString("utf8")}"`))
  } catch {
    return undefined
  }
}

/** The shape of a document in memory. */
export const ofBytes = (bytes: Uint8Array): Option.Option<ManifestShape> => {
  if (bytes.length > MediaType.maxManifestSize) return Option.none()
  const reader = new ManifestReader()
  reader.push(bytes)
  return reader.end()
}

/** Whether containerd could accept the document as a manifest of this type, which has to be one of the four. */
export const allows = ({ hasImage, hasIndex, mediaType }: ManifestShape, type: string): boolean =>
  MediaType.isIndex(type)
    ? !hasImage && !MediaType.isImage(mediaType)
    : MediaType.isImage(type) && !hasIndex && !MediaType.isIndex(mediaType)

/** The type that the document declares by its `mediaType`, otherwise by its fields. None if it is unknown or in doubt. */
export const ownType = (shape: ManifestShape): Option.Option<string> => {
  if (shape.mediaType === "") return shape.suggested
  return allows(shape, shape.mediaType) ? Option.some(shape.mediaType) : Option.none()
}

/**
 * The type to answer with. `kept` are the types under which the document is known, in sets of equal weight, the most
 * trusted first. The first set with a possible type decides; if it has several, the document itself has to say which. A
 * wrong type breaks a pull, but none leaves it to another host.
 */
export const typeOf = (
  shape: ManifestShape,
  kept: Iterable<ReadonlySet<string>>
): Option.Option<string> => {
  for (const types of kept) {
    const possible = [...types].filter((type) => allows(shape, type))
    if (possible.length === 1) return Option.fromUndefinedOr(possible[0])
    if (possible.length > 1) {
      return possible.includes(shape.mediaType) ? Option.some(shape.mediaType) : Option.none()
    }
  }
  return ownType(shape)
}
