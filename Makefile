# `make` lists the targets. The two for a fresh machine are `make up` and `make test`: both set up what they need.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The passwords that `fallback definitions --private private` made, if it has. Compose takes .env by itself only without one.
ENV_FILE ?= $(wildcard private/fallback.env)
DOTENV := $(wildcard .env)
COMPOSE := docker compose $(if $(ENV_FILE),$(addprefix --env-file ,$(DOTENV) $(ENV_FILE)))
# Of programs, tests and go vet alike, so that they share what is compiled.
export CGO_ENABLED := 0
export GOFLAGS := $(shell go env GOFLAGS 2>/dev/null) -trimpath
GO_BUILD := go build -ldflags='-s -w'
# One package after the other: each has brokers of its own.
E2E := go test -tags e2e -count=1 -p 1 -timeout 60m

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name about; do printf '  make %-12s %s\n' "$$name" "$$about"; done

##### run

.PHONY: up
up: docker compose rabbitmq image curl ## the whole story: a request is accepted while the primary is down, delivered when it is up
	@ENV_FILE='$(ENV_FILE)' test/story.sh $(COMPOSE)

.PHONY: down
down: ## stop; VOLUMES=1 forgets what is queued, too
	@$(COMPOSE) --profile demo down $(if $(VOLUMES),--volumes)

.PHONY: deploy
deploy: ## deploy the DigitalOcean Functions (doctl serverless deploy)
	@packages/deploy.sh

##### test

.PHONY: test
test: docker ## every test, the end-to-end ones on real containers too
	@$(MAKE) test-unit
	@$(MAKE) test-e2e

# Its two steps, for it and for busy.sh. Where the broker's image has to be made, that takes as long as compiling.
.PHONY: test-unit test-e2e test-rest
test-unit: docker
	@$(MAKE) -j2 rabbitmq test-rest
test-rest:
	@for part in compose image function lambda curl; do $(MAKE) "$$part"; done
	go test ./...
test-e2e:
	$(E2E) ./test/e2e ./test/fault ./test/harness ./test/ci

.PHONY: test-busy
test-busy: ## every test 3 times with all cores busy, and a table of what failed; ROUNDS=N LOOPS=N
	@test/busy.sh $(or $(ROUNDS),3) $(LOOPS)

.PHONY: test-quick
test-quick: ## the tests that need no Docker
	go vet ./... && go test ./...

# What `make test` need not wait for; .ci/run has both. All else runs on RabbitMQ 4.3.
.PHONY: test-long
test-long: ## what takes longer: race detector, fuzz targets for 5 seconds each, the drain in random worlds, older brokers, a crowd on the queue
	@$(MAKE) test-race
	@$(MAKE) simulate WORLDS=200 SEED=$(COMMIT_SEED)
	@$(MAKE) fuzz FUZZ_TIME=$(or $(FUZZ_TIME),5s)
	@$(MAKE) test-matrix VERSIONS='4.0 3.10'
	@$(MAKE) test-crowd

# The small one is among the end-to-end tests.
.PHONY: test-crowd
test-crowd: docker rabbitmq ## 300,000 requests of a sender that the primary limits wait before others
	FALLBACK_TEST_CROWD=300000 $(E2E) -run '^TestCrowd$$/with_room' ./test/e2e

# Of the end-to-end tests those that have the server and the drain in their own process; others' it could not see into.
.PHONY: test-race
test-race: docker cc rabbitmq compose image function lambda curl ## every test that has goroutines of ours, with the race detector
	CGO_ENABLED=1 go test -race ./...
	CGO_ENABLED=1 $(E2E) -race ./test/e2e

# Other worlds for each commit, and the same ones whenever that commit is tested again.
COMMIT_SEED = $(shell printf %d 0x$$(git rev-parse --short=8 HEAD 2>/dev/null || echo 1))

.PHONY: simulate
simulate: ## the drain in random worlds, about a day each, with primaries in trouble; WORLDS=3000 SEED=1 (0 is by the clock)
	go test ./functions/drain -count=1 -timeout 3h -run '^TestRandomWorlds$$' -v -drain.worlds $(or $(WORLDS),3000) -drain.seed $(or $(SEED),0) | grep -v -e '^=== ' -e '^ *--- PASS'

.PHONY: fuzz
fuzz: ## each fuzz target for a minute; FUZZ_TIME=5s
	@.ci/fuzz.sh $(or $(FUZZ_TIME),1m)

.PHONY: test-matrix
test-matrix: docker compose image function lambda curl ## the end-to-end tests on RabbitMQ 4.3, 4.0 and 3.10; VERSIONS=4.0
	@for version in $(or $(VERSIONS),4.3 4.0 3.10); do \
	  rabbitmq/image.sh "$$version"; \
	  echo "RabbitMQ $$version"; FALLBACK_TEST_RABBITMQ=$$version $(E2E) ./test/e2e ./test/fault; \
	done

.PHONY: fault
fault: docker rabbitmq ## the long fault suite, 1,000,000 requests and the drain, half an hour; writes test/fault/RESULTS.md
	FAULT_ACKNOWLEDGED=1000000 FAULT_RESULTS=. go test -tags e2e -count=1 -timeout 100m -v -run '^Test(Faults|Replays|Overload)$$' ./test/fault

.PHONY: bench
bench: docker rabbitmq build function lambda ## measure beside what it is made of; writes test/bench/RESULTS.md
	go build -o dist/bench ./test/bench && dist/bench

.PHONY: bench-go
bench-go: docker rabbitmq ## Go benchmarks of the hot path into dist/bench.txt; keep two and compare them with benchstat
	@mkdir -p dist
	go test -run '^$$' -bench . -count 6 ./functions/... | tee dist/bench.txt
	$(E2E) -run '^$$' -bench . -count 6 ./test/e2e | tee -a dist/bench.txt

##### build

.PHONY: build
build: ## dist/fallback, the program
	@$(GO_BUILD) -o dist/fallback ./functions/cmd/fallback

.PHONY: function
function: ## packages/fallback/*/exec, the DigitalOcean Functions
	@for build in packages/fallback/*/build.sh; do "$$build"; done

# Static, and the same bytes from the same sources by the same Go, on any host and at any commit.
.PHONY: lambda
lambda: ## dist/lambda-{amd64,arm64}.zip, the AWS Lambda function
	@for arch in amd64 arm64; do \
	  GOOS=linux GOARCH=$$arch GOAMD64=v1 GOARM64=v8.0 $(GO_BUILD) -buildvcs=false -tags lambda.norpc -o dist/lambda-$$arch/bootstrap ./functions/cmd/lambda; \
	  go run ./functions/cmd/lambda/pack dist/lambda-$$arch/bootstrap dist/lambda-$$arch.zip; \
	done

# With Go on the host the binary is compiled there, which needs no image registry; else inside a Go image.
.PHONY: image
image: docker ## the server's image
	@mkdir -p dist
	@docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0; \
	if command -v go >/dev/null; then $(MAKE) build; set -- --target prebuilt; else set --; fi; \
	docker build --quiet --tag fallback "$$@" . >/dev/null 2>dist/image.log || { cat dist/image.log >&2; exit 1; }

.PHONY: generate
generate: ## rabbitmq/definitions.json and the tables of the pages
	go run ./functions/cmd/fallback definitions > rabbitmq/definitions.json
	go test ./functions/app -run TestPages -update

.PHONY: verify
verify: ## fail when a generated file or go.mod is stale, a file is not formatted, or go vet finds something
	go mod tidy -diff
	go vet -tags e2e ./...
	go test ./functions/cmd/fallback ./functions/app
	@unformatted=$$(gofmt -l functions packages test); test -z "$$unformatted" || { echo "gofmt: $$unformatted" >&2; exit 1; }

# The tools' versions are in a module file of their own, so that they choose none of the product's.
.PHONY: lint
lint: ## staticcheck, and govulncheck where its database can be reached
	go tool -modfile=.ci/tools.mod staticcheck -checks all -tags e2e ./...
	@.ci/vulnerabilities.sh

##### set-up: each looks first and changes nothing that is there

.PHONY: docker compose rabbitmq curl cc
docker:
	@.ci/host.sh docker
compose: docker
	@.ci/host.sh compose
rabbitmq: docker
	@rabbitmq/image.sh
curl:
	@command -v curl >/dev/null || .ci/host.sh install curl
# For the race detector, which is the one thing here that needs C.
cc:
	@printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | $$(go env CC) -x c -o /dev/null - 2>/dev/null || .ci/host.sh install gcc libc6-dev
