/**
 * Manifests and indexes as registries of the field have them: spellings x types x sizes. Some of them containerd takes,
 * some it refuses; the table does not say which, real daemons do.
 */
import * as MediaType from "@spegel-ts/oci/MediaType"

/** The parts of a document. */
export interface Parts {
  readonly config: object
  readonly layers: ReadonlyArray<object>
  /** A plain manifest of the image, with this machine's platform. */
  readonly child: { readonly platform: object }
}

export interface Row {
  /** Also the repository's name. */
  readonly name: string
  /** The media type that the registry gives the document. */
  readonly contentType: string
  /** How it is pulled: by its tag, by its digest, or by its tag and then the manifest that it names by that one's digest. */
  readonly by: "tag" | "digest" | "child"
  readonly document: (parts: Parts) => Buffer
  /** The child's bytes, where they are not plain. */
  readonly child?: (parts: Omit<Parts, "child">) => Buffer
}

type Fields = Readonly<Record<string, unknown>>
type Spelling = (fields: Fields, type: string) => string | Buffer

const json = (value: unknown) => JSON.stringify(value)

/** Members as they stand here, whatever an object would make of them. */
const members = (...all: ReadonlyArray<readonly [string, unknown]>) =>
  `{${all.map(([key, value]) => `${json(key)}:${json(value)}`).join(",")}}`

const without = (fields: Fields, ...names: ReadonlyArray<string>) =>
  Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name)))

const otherFamily: Readonly<Record<string, string>> = {
  [MediaType.imageManifest]: MediaType.dockerManifest,
  [MediaType.dockerManifest]: MediaType.imageManifest,
  [MediaType.imageIndex]: MediaType.dockerManifestList,
  [MediaType.dockerManifestList]: MediaType.imageIndex
}

const otherKind = (type: string) => MediaType.isIndex(type) ? MediaType.imageManifest : MediaType.imageIndex

const padded = (size: number): Spelling => (fields) => {
  const empty = Buffer.byteLength(json({ ...fields, annotations: { pad: "" } }))
  return json({ ...fields, annotations: { pad: "x".repeat(size - empty) } })
}

/** Written in each of the four types. */
const spellings: Readonly<Record<string, Spelling>> = {
  "plain": (fields) => json(fields),
  "newline": (fields) => `\n${json(fields)}`,
  "no-type": (fields) => json(without(fields, "mediaType")),
  "empty-type": (fields) => json({ ...fields, mediaType: "" }),
  "foreign-type": (fields) => json({ ...fields, mediaType: "application/json" }),
  "other-family": (fields, type) => json({ ...fields, mediaType: otherFamily[type] }),
  "above-4-mib": padded(4 * 1024 * 1024 + 1)
}

/** Written as an OCI manifest and as an OCI index. */
const rareSpellings: Readonly<Record<string, Spelling>> = {
  "spaces": (fields) => ` \t\r\n${JSON.stringify(fields, null, 2)}\r\n `,
  "null-type": (fields) => json({ ...fields, mediaType: null }),
  "bare": (fields) => json(without(fields, "schemaVersion", "mediaType")),
  "no-version": (fields) => json(without(fields, "schemaVersion")),
  "version-1": (fields) => json({ ...fields, schemaVersion: 1 }),
  "version-0": (fields) => json({ ...fields, schemaVersion: 0 }),
  "version-null": (fields) => json({ ...fields, schemaVersion: null }),
  "version-text": (fields) => json({ ...fields, schemaVersion: "2" }),
  "version-3": (fields) => json({ ...fields, schemaVersion: 3 }),
  "capitals": (fields) => members(...Object.entries(fields).map(([key, value]) => [key.toUpperCase(), value] as const)),
  "long-s": (fields) =>
    members(...Object.entries(fields).map(([key, value]) => [key.replace(/s$/, "\u017f"), value] as const)),
  "escaped-key": (fields) => json(fields).replace("mediaType", "m\\u0065diaType"),
  "type-twice": (fields, type) => members(["mediaType", otherKind(type)], ...Object.entries(fields)),
  "type-then-null": (fields) => members(...Object.entries(fields), ["mediaType", null]),
  "type-in-two-cases": (fields, type) =>
    members(...Object.entries({ ...fields, mediaType: otherKind(type) }), ["MEDIATYPE", type]),
  "type-number": (fields) => json({ ...fields, mediaType: 5 }),
  "annotations-null": (fields) => json({ ...fields, annotations: null }),
  "annotation-null": (fields) => json({ ...fields, annotations: { a: null } }),
  "annotations-nested": (fields) => json({ ...fields, annotations: { manifests: "]}\"[", config: "{\\" } }),
  "not-utf8": (fields) => Buffer.from(json({ ...fields, annotations: { a: "\u00ff" } }), "latin1"),
  "byte-order-mark": (fields) => `\ufeff${json(fields)}`,
  "rubbish-after": (fields) => `${json(fields)}{}`,
  "cut-short": (fields) => json(fields).slice(0, -1),
  "other-kind-said": (fields, type) => json({ ...fields, mediaType: otherKind(type) }),
  "both-kinds": (fields) => json({ ...fields, manifests: fields["manifests"] ?? [], layers: fields["layers"] ?? [] }),
  "both-kinds-null": (fields) => json({ config: null, manifests: null, ...fields }),
  "schema-1-layers": (fields) => json({ ...fields, fsLayers: [] }),
  "foreign-fields": (fields) => json({ ...fields, subject: null, artifactType: "", extra: { manifests: [1] } }),
  "64-kib": padded(64 * 1024),
  "limit": padded(MediaType.maxManifestSize),
  "above-limit": padded(MediaType.maxManifestSize + 1)
}

/** Documents that only an index can be. */
const indexes: Readonly<Record<string, (parts: Parts) => unknown>> = {
  "platform-null": ({ child }) => [{ ...child, platform: null }],
  "platform-empty": ({ child }) => [{ ...child, platform: {} }, child],
  "annotations-of-entry-null": ({ child }) => [{ ...child, annotations: null }],
  "foreign-digest": ({ child }) => [
    child,
    { ...child, digest: `blake3:${"a".repeat(64)}`, platform: { os: "plan9", architecture: "mips" } }
  ],
  "entry-null": ({ child }) => [child, null],
  "entry-empty": ({ child }) => [child, {}],
  "entry-of-foreign-type": (
    { child }
  ) => [child, { ...child, mediaType: "a/b", platform: { os: "plan9", architecture: "mips" } }],
  "nobody": () => [],
  "null": () => null
}

const familyOf = (type: string) => type.includes("docker") ? "docker" : "oci"
const kindOf = (type: string) => MediaType.isIndex(type) ? "index" : "manifest"

const fieldsOf = (type: string, { child, config, layers }: Parts): Fields => ({
  schemaVersion: 2,
  mediaType: type,
  ...(MediaType.isIndex(type) ? { manifests: [child] } : { config, layers })
})

const inType = (type: string, all: Readonly<Record<string, Spelling>>): ReadonlyArray<Row> =>
  Object.entries(all).map(([spelling, write]) => ({
    name: `${familyOf(type)}-${kindOf(type)}/${spelling}`,
    contentType: type,
    by: "tag",
    document: (parts) => Buffer.from(write(fieldsOf(type, parts), type))
  }))

const { dockerManifest, dockerManifestList, imageIndex, imageManifest } = MediaType

const plain = (type: string): Row["document"] => (parts) => Buffer.from(json(fieldsOf(type, parts)))

/** The media types that the registry gives a plain manifest. */
const contentTypes: Readonly<Record<string, string>> = {
  "with-charset": `${imageManifest}; charset=utf-8`,
  "other-family-of-bytes": dockerManifest,
  "index": imageIndex,
  "json": "application/json",
  "octet-stream": "application/octet-stream",
  "text": "text/plain",
  "capitals": imageManifest.toUpperCase(),
  "empty": ""
}

/** A child that its index names as a Docker manifest, and that does not say what it is. */
const children: Readonly<Record<string, NonNullable<Row["child"]>>> = {
  "bare": ({ config, layers }) => Buffer.from(json({ config, layers })),
  "newline": ({ config, layers }) =>
    Buffer.from(`\n${json({ schemaVersion: 2, mediaType: dockerManifest, config, layers })}`),
  "foreign-type": ({ config, layers }) => Buffer.from(json({ schemaVersion: 2, mediaType: "a/b", config, layers }))
}

export const rows: ReadonlyArray<Row> = [
  ...[imageManifest, imageIndex, dockerManifest, dockerManifestList].flatMap((type) => inType(type, spellings)),
  ...[imageManifest, imageIndex].flatMap((type) => inType(type, rareSpellings)),
  ...Object.entries(indexes).map(([spelling, manifests]): Row => ({
    name: `listing/${spelling}`,
    contentType: imageIndex,
    by: "tag",
    document: (parts) => Buffer.from(json({ ...fieldsOf(imageIndex, parts), manifests: manifests(parts) }))
  })),
  ...Object.entries(contentTypes).map(([name, contentType]): Row => ({
    name: `content-type/${name}`,
    contentType,
    by: "tag",
    document: plain(imageManifest)
  })),
  ...[imageManifest, dockerManifestList].flatMap((type) =>
    ["no-type", "newline", "empty-type"].map((spelling): Row => ({
      name: `digest/${familyOf(type)}-${kindOf(type)}-${spelling}`,
      contentType: type,
      by: "digest",
      document: (parts) => Buffer.from((spellings[spelling] ?? json)(fieldsOf(type, parts), type))
    }))
  ),
  ...Object.entries(children).map(([name, child]): Row => ({
    name: `child/${name}`,
    contentType: dockerManifestList,
    by: "child",
    document: plain(dockerManifestList),
    child
  }))
]
