// Package lab makes real hosts on one Linux machine, for tests and for the
// demonstration.
//
// A host is what a rented server is to teal: an address that answers SSH, a
// proxy (nginx or HAProxy), a Docker Engine or a Podman of its own, root's or the
// login user's, a login user with sudo,
// a disk that outlives a power loss, and a cable that can be pulled. With load
// balancers these run the proxy in the place of the other hosts, and no engine.
// Whoever wants to see the worst kills, restarts or freezes a host's proxy and
// fills its disk. A host is made of
// network, mount, pid, uts, ipc and cgroup namespaces over an overlay of the
// machine's own root, so it starts in about a second and costs about as much
// memory as its programs do. Process 1 of each host is the program that made
// the lab, started again: main and TestMain call Init first.
//
// A services host has what a deployment takes things from: a registry and git
// repositories over SSH. All hosts hang on a bridge in a namespace of its own,
// the hub; the machine itself gets one link to it and nothing else. No host
// has a route to the outside.
//
// What a lab makes is bound to its processes and to its folder. When the
// program that called Start dies, the hosts lose power by themselves, unless
// Config.Detached is set; Stop, or Down from another process, removes what is
// left: links, control groups and the folder.
//
// The package's own tests deploy to such hosts. What they deploy with stands in
// one table of runtimes: Docker, Podman of root and of the login user, and plugins.
// The environment variable TEAL_RUNTIME says which of the first three all tests
// of deployments take: docker, podman or rootless-podman. Without it they take
// Docker, and those in which a runtime goes ways of its own (releases that fail in
// any step, a green that dies, the time at which blue leaves, a killed teal, a
// reboot) are run with the others beside it. make lab takes a list, or all.
//
// Only root on Linux can do this; Missing says what else a machine lacks. The
// package uses the standard library and the programs that the hosts run
// anyway: network links are made by iproute2, because one batch of it reads
// better than the same in netlink messages.
package lab
