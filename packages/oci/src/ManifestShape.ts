/**
 * What the top level of a manifest shows of its type. containerd reads it with Go's encoding/json, and so does this:
 * keys match in any case, the last of several counts, null sets no string, a byte order mark is an error.
 *
 * Nothing is built of what lies deeper, so that a large manifest costs one pass over its bytes. JSON that is broken
 * there is not noticed: containerd refuses it, whoever sends it.
 */
import { Option } from "effect"
import * as JsonField from "./JsonField.ts"
import * as MediaType from "./MediaType.ts"

/** A document as containerd sees it before it believes a media type of it (`validateMediaType`). */
export interface ManifestShape {
  /** What it says itself, which may be anything; empty where it says nothing. */
  readonly mediaType: string
  /** It has `config` or `layers`, if only null: it is no index. */
  readonly hasImage: boolean
  /** It has `manifests`, if only null: it is no manifest of one image. */
  readonly hasIndex: boolean
  /** The type that its fields suggest where it says nothing itself. */
  readonly suggested: Option.Option<string>
}

const fieldNames = ["mediaType", "config", "layers", "manifests", "fsLayers"] as const
type Field = (typeof fieldNames)[number]

const fieldOf: ReadonlyMap<string, Field> = new Map(fieldNames.map((name) => [JsonField.fold(name), name]))

/** No key or media type that is known is longer, even with each letter escaped. In bytes. */
const maxCaptured = 512

/** A manifest has less than ten keys at its top level; with more than this it is left to other hosts. */
const maxKeys = 10_000

const byteOf = (character: string) => character.charCodeAt(0)
const [quote, backslash, colon, comma, nullStart] = [byteOf("\""), byteOf("\\"), byteOf(":"), byteOf(","), byteOf("n")]
const [openBrace, closeBrace, openBracket, closeBracket] = [byteOf("{"), byteOf("}"), byteOf("["), byteOf("]")]
const isSpace = (byte: number) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

/** Reads one document, piece by piece as it comes. */
export class ManifestReader {
  #progress: "before" | "within" | "after" | "refused" = "before"
  #depth = 0
  /** What comes next at the top level; `rest` is what follows the first byte of a value. */
  #expected: "key" | "value" | "rest" = "key"
  #field: Field | undefined
  #inString = false
  #escaped = false
  /** Bytes of the string being read, where it may matter. */
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

  /** Whether what comes still makes no difference: it is no manifest. */
  get refused(): boolean {
    return this.#progress === "refused"
  }

  /** What all the bytes are. None where they are no JSON object, or one that containerd takes for no manifest at all. */
  end(): Option.Option<ManifestShape> {
    // fsLayers are those of schema 1, which containerd converts or refuses, but never keeps.
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
    // Null leaves what another `mediaType` has said before.
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
      // One more than may be: it is not the shorter string that it begins with.
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

/** The text of a JSON string, of which these are the bytes between the quotes; undefined where it is none. */
const textOf = (captured: ReadonlyArray<number>): string | undefined => {
  // Too long to be anything that is known.
  if (captured.length > maxCaptured) return "..."
  try {
    return String(JSON.parse(`"${Buffer.from(captured).toString("utf8")}"`))
  } catch {
    return undefined
  }
}

/** The shape of a document at hand. */
export const ofBytes = (bytes: Uint8Array): Option.Option<ManifestShape> => {
  if (bytes.length > MediaType.maxManifestSize) return Option.none()
  const reader = new ManifestReader()
  reader.push(bytes)
  return reader.end()
}

/** Whether containerd could take the document for a manifest of this type: one of the four, and of its kind. */
export const allows = ({ hasImage, hasIndex, mediaType }: ManifestShape, type: string): boolean =>
  MediaType.isIndex(type)
    ? !hasImage && !MediaType.isImage(mediaType)
    : MediaType.isImage(type) && !hasIndex && !MediaType.isIndex(mediaType)

/** The type by the document alone: what it says, else what its fields suggest. None where that is unknown or in doubt. */
export const ownType = (shape: ManifestShape): Option.Option<string> => {
  if (shape.mediaType === "") return shape.suggested
  return allows(shape, shape.mediaType) ? Option.some(shape.mediaType) : Option.none()
}

/**
 * The type to answer with. `kept` are the types that the document is known under elsewhere, in sets of equal weight,
 * the weightiest first: the first set that names a possible one decides. Where it names several, the document has to
 * say which; a wrong type breaks a pull, none leaves it to another host.
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
