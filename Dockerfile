# syntax=docker/dockerfile:1
FROM node:24.21.0-bookworm-slim AS build
WORKDIR /src
COPY . .
RUN npm ci --ignore-scripts && npx rolldown -c rolldown.config.ts

FROM gcr.io/distroless/nodejs24-debian12
COPY --from=build --chown=0:0 --chmod=0555 /src/apps/spegel/bundle /app
ENV NODE_ENV=production
ENTRYPOINT ["/nodejs/bin/node", "/app/main.js"]
