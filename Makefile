# The comment after each target describes it; `make` lists the targets with their comments.
SHELL := /bin/sh
GO    ?= go

.DEFAULT_GOAL := help
.PHONY: help build demo test servers up down lint asyncapi vuln check bench bench-orchestrator bench-history soak fuzz clean test-versions test-cluster test-alerts

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

servers: ## install RabbitMQ and PostgreSQL from Debian's packages, if they are missing
	@scripts/install-servers.sh

build: ## build the command line and the four services into bin/
	@$(GO) build -o bin/ ./cmd/...

demo: servers build ## run orders through every outcome on private servers, and check each of them
	@bin/quadrille demo

test: servers build ## run all tests on private servers, with the race detector
	@GOWORK=$(CURDIR)/tests/modules.work $(GO) vet ./... ./tests/compose
	@GOWORK=$(CURDIR)/tests/modules.work GO="$(GO)" scripts/test.sh ./... ./tests/compose
	@cd tests/metrics && $(GO) vet . && RACE= GO="$(GO)" ../../scripts/test.sh .

test-alerts: servers ## cause each fault of the alert rules on real servers, which takes two minutes
	@cd tests/metrics && $(GO) test -tags faults -v -count 1 -parallel 16 -timeout 10m -run Faults .

test-versions: build ## run all tests on the servers of Debian 13, in a tree of it, without the race detector
	@GO="$(GO)" scripts/test-versions.sh

test-cluster: servers ## kill, restart and pause three RabbitMQ nodes, and promote a standby of PostgreSQL, under traffic
	@$(GO) test -tags cluster -count 1 -timeout 15m ./tests/cluster
	@$(GO) test -tags cluster -race -count 1 -timeout 5m -run TestPromotedStandby .

up: servers build ## start everything and stay until Ctrl-C
	@bin/quadrille up

down: build ## stop the processes that up --detach started
	@bin/quadrille down

check: build ## explore every interleaving of the reactions
	@bin/quadrille check

vuln: ## look for known vulnerabilities in what is used
	@$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.1.4 ./...

lint: ## run golangci-lint, built from its pinned module
	@$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run
	@cd tests/bench/orchestrator && $(GO) vet .

asyncapi: build ## validate the AsyncAPI document with the official parser, which needs npm
	@npm install --silent --no-audit --no-fund --no-save --prefix bin/asyncapi @asyncapi/parser@3.6.3
	@bin/quadrille topology export -o asyncapi | node scripts/asyncapi.mjs $(CURDIR)/bin/asyncapi

bench-orchestrator: servers ## compare the choreography with an orchestrator that does the same work
	@cd tests/bench/orchestrator && $(GO) test -run '^$$' -bench . -benchtime 1x -timeout 20m .

bench: servers build ## measure the relay, the consumer and the order flow, each with the limit of the machine
	@$(GO) test -run '^$$' -bench 'Relay$$' -benchtime 3x -timeout 60m ./outbox
	@$(GO) test -run '^$$' -bench . -benchtime 40000x -timeout 60m ./consumer
	@$(GO) test -run '^$$' -bench . -benchtime 3x -timeout 60m ./outbox/cdc ./eventstore
	@$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./tests/bench

bench-history: servers ## measure the relay with ten million old rows, and with none
	@$(GO) test -run '^$$' -bench History -benchtime 5x -timeout 60m ./outbox

soak: servers build ## the end-to-end test under faults, with more orders and more faults
	@QUADRILLE_SOAK=1 $(GO) test -race -count 1 -timeout 85m -run Chaos ./tests/system

fuzz: ## fuzz the decoders for a minute each
	@$(GO) test -run '^$$' -fuzz FuzzDecode -fuzztime 60s ./events
	@$(GO) test -run '^$$' -fuzz FuzzRecord -fuzztime 60s ./rabbit

clean: ## remove bin/
	@rm -rf bin
