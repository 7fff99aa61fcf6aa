// Package forward carries TCP connections from addresses of the machine to addresses inside a cluster's network.
package forward

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// dialTimeout bounds one connection attempt: the other end is one virtual cable away, so anything slower is absent.
const dialTimeout = 3 * time.Second

// Main listens on each LISTEN=TARGET argument until SIGTERM. It exits with 1 when an address cannot be taken.
func Main() int {
	flags := flag.NewFlagSet("forward", flag.ExitOnError)
	flags.Usage = func() { fmt.Fprintln(os.Stderr, "usage: forward LISTEN=TARGET ...   (HOST:PORT each)") }
	_ = flags.Parse(os.Args[1:])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var serving sync.WaitGroup
	for _, route := range flags.Args() {
		listen, target, found := strings.Cut(route, "=")
		if !found {
			flags.Usage()
			return 2
		}
		listener, err := net.Listen("tcp", listen)
		if err != nil {
			log.Printf("cannot listen on %s: %v", listen, err)
			return 1
		}
		log.Printf("forwarding %s to %s", listen, target)
		context.AfterFunc(ctx, func() { _ = listener.Close() })
		serving.Add(1)
		go func() {
			defer serving.Done()
			serve(listener, target)
		}()
	}
	serving.Wait()
	return 0
}

// serve accepts until the listener is closed.
func serve(listener net.Listener, target string) {
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Printf("accept: %v", err)
			time.Sleep(100 * time.Millisecond) // out of file descriptors, most likely: do not spin
			continue
		}
		go carry(client.(*net.TCPConn), target)
	}
}

// carry copies both ways and hands on each half-close, which SPDY and chunked uploads rely on.
func carry(client *net.TCPConn, target string) {
	defer client.Close()
	connection, err := net.DialTimeout("tcp", target, dialTimeout)
	if err != nil {
		log.Printf("%s: %v", target, err)
		return
	}
	server := connection.(*net.TCPConn)
	defer server.Close()
	var copying sync.WaitGroup
	for _, pair := range [][2]*net.TCPConn{{server, client}, {client, server}} {
		copying.Add(1)
		go func() {
			defer copying.Done()
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].CloseWrite()
		}()
	}
	copying.Wait()
}
