# teal: every target works from a fresh clone on Debian with Go.

SHELL := /bin/bash
TOOLS := $(CURDIR)/.tools
BIN   := $(CURDIR)/bin
export PATH := $(TOOLS):$(PATH)

GOLANGCI_VERSION := v2.15.0
GOFUMPT_VERSION  := v0.12.0
BUF_VERSION      := v1.75.0
PROTOC_GO        := v1.36.12
PROTOC_GO_GRPC   := v1.6.2

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/teal-deploy/teal/cmd/internal/cli.version=$(VERSION)

# What the lab and the tests run as real parts: program, package.
PARTS := /usr/sbin/sshd:openssh-server /usr/sbin/nginx:nginx-light /usr/sbin/haproxy:haproxy /usr/sbin/dockerd:docker.io \
	/usr/bin/docker-registry:docker-registry /usr/bin/busybox:busybox-static /usr/sbin/ip:iproute2 \
	/usr/sbin/iptables:iptables /usr/bin/git:git /usr/bin/ssh:openssh-client /usr/bin/htpasswd:apache2-utils \
	/usr/bin/sudo:sudo /usr/bin/nsenter:util-linux /usr/sbin/useradd:passwd \
	/usr/bin/podman:podman /usr/bin/newuidmap:uidmap /usr/bin/slirp4netns:slirp4netns \
	/usr/lib/cni/portmap:containernetworking-plugins \
	/usr/bin/jq:jq /usr/bin/protoc:protobuf-compiler /usr/include/google/protobuf/duration.proto:libprotobuf-dev \
	/usr/bin/openssl:openssl /usr/lib/python3/dist-packages/grpc:python3-grpcio

.PHONY: build test unit lab lint fmt generate bench demo deps tools clean

build: ## bin/teal
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/teal ./cmd/teal

test: deps tools build ## everything that CI runs
	$(MAKE) lint
	$(MAKE) unit
	$(MAKE) lab

# The engine's tests do hundreds of deployments at once: they run by themselves,
# so that they take no time away from tests of others that look at the clock.
# The others wait more than they work: four packages at a time. What go vet has to
# say, lint says.
unit: ## all tests that need no lab
	go test -race -vet=off -p 4 $(TESTFLAGS) $$(go list ./... | grep -v -e '/examples/lab$$' -e '/teal/orchestrator$$')
	go test -race -vet=off $(TESTFLAGS) ./orchestrator

# What the lab's tests deploy with: docker, podman (root's) or rootless-podman,
# several with commas, or all; each has all tests, one runtime after the other.
# Unset, Docker has all of them, and the others have, beside it, those in which
# they go ways of their own.
TEAL_RUNTIME ?=
comma    := ,
RUNTIMES := $(patsubst all,docker podman rootless-podman,$(subst $(comma), ,$(TEAL_RUNTIME)))

# Its tests see to it themselves how many labs there are at a time.
lab: build ## tests against real servers in network namespaces; needs root; TEAL_RUNTIME=podman for all of them with Podman
	@for runtime in $(or $(RUNTIMES),""); do \
		echo "lab: $${runtime:-docker, and the others beside it}"; \
		TEAL=$(BIN)/teal TEAL_RUNTIME=$$runtime \
			go test -race -vet=off -count=1 -timeout $(if $(RUNTIMES),40m,20m) $(TESTFLAGS) ./examples/lab || exit; \
	done

# With the flags of build, whose results are used again.
lint: tools
	CGO_ENABLED=0 GOFLAGS=-trimpath golangci-lint run ./...
	@test -z "$$(gofumpt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'))" || { gofumpt -l $$(git ls-files '*.go'); exit 1; }

fmt: tools
	gofumpt -w $$(git ls-files '*.go' | grep -v '\.pb\.go$$')

generate: ## the wire code of the plugins, which is committed
	GOBIN=$(TOOLS) go install github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION)
	GOBIN=$(TOOLS) go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GO)
	GOBIN=$(TOOLS) go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GO_GRPC)
	go generate ./...

bench: ## ratios within one run, never a verdict
	go test -run '^$$' -bench . -benchmem ./...

PROXY ?= nginx
LB    ?= 0

demo: deps build ## two releases, a rollback and real load on two hosts of a lab; PROXY=haproxy LB=2 for two load balancers
	go run ./examples/lab/cmd/teal-lab demo -teal $(BIN)/teal -proxy $(PROXY) -lb $(LB)

deps: ## install the real parts that are missing
	@missing=(); for p in $(PARTS); do [ -e $${p%%:*} ] || missing+=($${p#*:}); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "installing $${missing[*]}"; \
		[ "$$(id -u)" = 0 ] || { echo "run as root, or: sudo apt-get install $${missing[*]}" >&2; exit 1; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $${missing[@]} >/dev/null; \
	fi

tools: $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION) $(TOOLS)/gofumpt-$(GOFUMPT_VERSION)

$(TOOLS)/golangci-lint-$(GOLANGCI_VERSION):
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@touch $@

$(TOOLS)/gofumpt-$(GOFUMPT_VERSION):
	GOBIN=$(TOOLS) go install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)
	@touch $@

clean:
	rm -rf $(BIN) $(TOOLS)
