# syntax=docker/dockerfile:1
FROM node:24.21.0-bookworm-slim AS build
WORKDIR /src
COPY . .
RUN npm ci --ignore-scripts && npx rolldown -c rolldown.config.ts

FROM gcr.io/distroless/nodejs24-debian12
COPY --from=build --chown=0:0 --chmod=0555 /src/apps/spegel/bundle /app
# Garbage is collected early, memory goes back to the system, and code is compiled when the image is built:
# `npm run bench -- router-memory` and `router-hostile` measure what that saves.
ENV NODE_ENV=production MALLOC_ARENA_MAX=1 NODE_COMPILE_CACHE=/app/compiled
RUN ["/nodejs/bin/node", "--optimize-for-size", "--max-semi-space-size=2", "--heap-growing-percent=20", "/app/main.js", "version"]
ENTRYPOINT ["/nodejs/bin/node", "--optimize-for-size", "--max-semi-space-size=2", "--heap-growing-percent=20", "/app/main.js"]
