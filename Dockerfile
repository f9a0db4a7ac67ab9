# The image of `fallback`: one static binary and nothing else.
#
#   docker build .                       compiles inside; needs an image registry
#   docker build --target prebuilt .     takes dist/fallback, compiled outside; needs none (`make image` does this)

FROM scratch AS runtime
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/fallback"]
CMD ["serve"]

# The pattern, with a file that is always there beside it, may match nothing: a builder without BuildKit comes through here
# for `docker build .` too, where nothing has been compiled outside.
FROM runtime AS prebuilt
COPY LICENSE dist/fallbac[k] /

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY functions functions
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /fallback ./functions/cmd/fallback

FROM runtime
COPY --from=build /fallback /fallback
