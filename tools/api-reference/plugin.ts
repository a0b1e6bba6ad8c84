/**
 * Teaches typedoc this repository's rules: modules are named as they are imported, the comment at a file's head belongs to
 * the module, and each export needs a docstring.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import {
  type Application,
  Comment,
  Converter,
  type DeclarationReflection,
  MinimalSourceFile,
  ParameterType,
  type ProjectReflection,
  ReflectionKind
} from "typedoc"

/** The comment at the head of a file. If no import follows it, it belongs to the declaration below it. */
const header = /^(\/\*\*(?:(?!\*\/)[^])*\*\/)\s*import\b/

const documented = (reflection: DeclarationReflection): boolean =>
  reflection.hasComment() || (reflection.signatures ?? []).some((signature) => signature.hasComment())

/** Exports, and static members of exported classes: services have their layers there. */
const publicOf = (module: DeclarationReflection): ReadonlyArray<DeclarationReflection> => {
  const exports = module.children ?? []
  const members = exports.flatMap((child) => child.kind === ReflectionKind.Class ? child.children ?? [] : [])
  return [...exports, ...members.filter(({ flags, inheritedFrom }) => flags.isStatic && inheritedFrom === undefined)]
}

/** A type and the value of the same name are one thing to a reader, who sees them together: one docstring is enough. */
const undocumented = (project: ProjectReflection): ReadonlyArray<string> =>
  (project.children ?? []).flatMap((module) => {
    const nameOf = (reflection: DeclarationReflection) => reflection.getFriendlyFullName()
    const members = publicOf(module)
    const done = new Set(members.filter(documented).map(nameOf))
    return [...new Set(members.map(nameOf))].filter((name) => !done.has(name))
  })

export const load = (app: Application): void => {
  app.options.addDeclaration({
    name: "undocumented",
    help: "Exports without a docstring: write their list beside the reference, or fail",
    type: ParameterType.Map,
    map: { list: "list", fail: "fail" },
    defaultValue: "fail"
  })

  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const module of project.getReflectionsByKind(ReflectionKind.Module)) {
      const [, name, path] = /^(?:packages\/)?([^/]+)\/src\/(.+)$/.exec(module.name) ?? []
      if (name === undefined) throw new Error(`${module.name} is no module of a package`)
      module.name = `@spegel-ts/${name}/${path}`
      const file = module.isDeclaration() ? module.sources?.[0]?.fullFileName : undefined
      const text = file === undefined ? undefined : header.exec(readFileSync(file, "utf8"))?.[1]
      if (file !== undefined && text !== undefined) {
        const { content } = app.converter.parseRawComment(
          new MinimalSourceFile(text.replace(/^\/\*\*\s?|\s*\*\/$|^ \* ?/gm, ""), file),
          app.files
        )
        module.comment = new Comment(content)
      }
    }
  })

  app.on("validateProject", (project) => {
    if (app.options.getValue("undocumented") === "list") return
    for (const name of undocumented(project)) app.logger.validationWarning(`${name} has no docstring`)
  })

  app.renderer.on("endRender", ({ outputDirectory, project }) => {
    writeFileSync(join(outputDirectory, "undocumented.txt"), undocumented(project).map((name) => `${name}\n`).join(""))
  })
}
