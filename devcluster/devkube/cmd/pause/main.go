// Command pause does nothing until it is told to stop, and reaps orphans meanwhile.
//
// It has two uses: it is the only process of a pod's sandbox image, and, on the machine itself, the process
// that keeps a node's network and mount namespaces alive while its components come and go.
// It stands alone, outside devkube, because one runs for every pod: 1.5 MB against 150.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		reap()
	}
}

// reap collects every child that has ended. Signals coalesce, so one SIGCHLD can stand for many.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}
