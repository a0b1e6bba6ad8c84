FROM --platform=$BUILDPLATFORM node:24.21.0-bookworm-slim@sha256:0e0ff40c39bc087845bfb27465a0df4ea419520094bc35842ff83dd8cbe6f9b6 AS build
# The bundle does not tell a scanner what it is made of; this stage does.
ARG BUILDKIT_SBOM_SCAN_STAGE=true
WORKDIR /src
COPY . .
# What `spegel version` says: the build has no repository to ask.
ARG SPEGEL_COMMIT=unknown
RUN npm ci --ignore-scripts && SPEGEL_COMMIT=$SPEGEL_COMMIT npm run bundle

# Node, the libraries it needs and the bundle, nothing else: `npm run image` makes the same files without Docker.
FROM node:24.21.0-bookworm-slim@sha256:0e0ff40c39bc087845bfb27465a0df4ea419520094bc35842ff83dd8cbe6f9b6 AS root
COPY --from=build /src /src
RUN node --conditions=@spegel-ts/source /src/apps/release/src/main.ts root /root-filesystem

FROM scratch
COPY --from=root /root-filesystem/base /
COPY --from=root /root-filesystem/app /
# The code was compiled when the image was built.
ENV NODE_ENV=production MALLOC_ARENA_MAX=1 NODE_COMPILE_CACHE=/app/compiled
# containerd's socket is of root's group.
USER 65532:0
# Garbage is collected early and memory goes back to the system: `npm run bench -- router-memory` and `router-hostile`
# measure what that saves. On a busy node a collection must not wait for helper threads that get no core. Without Maglev, V8's
# middle compiler, hundreds of functions are not compiled within one request, the 510th or so: `npm run bench -- latency`.
ENTRYPOINT ["/nodejs/bin/node", "--max-semi-space-size=2", "--heap-growing-percent=20", "--no-parallel-scavenge", "--no-maglev", "/app/main.js"]
