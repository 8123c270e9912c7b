//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/teal-deploy/teal/examples/lab"
)

func main() {
	if lab.Init(os.Args[1:]) {
		return
	}
	ctx := context.Background()
	t := time.Now()
	l, err := lab.Start(ctx, lab.Config{Dir: os.Args[1], Hosts: 2, Engine: "docker", Services: true})
	fmt.Println(time.Since(t), err)
	if err != nil {
		os.Exit(1)
	}
	fmt.Println(l.Host(1).SSH(ctx, "id; docker version; sudo -n id; ps aux; ip -br a; cat /proc/sys/kernel/random/boot_id; cat /proc/1/cgroup"))
	t = time.Now()
	fmt.Println(l.Host(1).Reboot(ctx), time.Since(t))
	fmt.Println(l.Host(1).SSH(ctx, "curl -s http://"+l.Registry().String()+"/v2/; ssh -o BatchMode=yes git@services true; dmesg | tail -3"))
	t = time.Now()
	fmt.Println(l.Stop(ctx), time.Since(t))
}
