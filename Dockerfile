# The image of `fallback`: one static binary and nothing else.
#
#   docker build .                       compiles inside; needs an image registry
#   docker build --target prebuilt .     takes dist/fallback, compiled outside; needs none (`make image` does this)

FROM scratch AS runtime
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/fallback"]
CMD ["serve"]

FROM runtime AS prebuilt
COPY dist/fallback /fallback

FROM golang:1.25 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY functions functions
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /fallback ./functions/cmd/fallback

FROM runtime
COPY --from=build /fallback /fallback
