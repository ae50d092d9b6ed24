// An echo service in the manner of the 2013 program that lastecho descends
// from, to measure against: accept with a deadline to look at the stop, a
// goroutine with a 4096-byte buffer per connection, reads with a deadline.
//
// Its faults that would spoil the measurement are mended: it writes what it
// read instead of its whole buffer, and a slow write is not given up.
package main

import (
	"errors"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// How long an accept or a read waits before it looks at the stop.
const poll = time.Second

func main() {
	if len(os.Args) != 2 {
		log.Fatalf("usage: %s IP:PORT", os.Args[0])
	}
	address, err := net.ResolveTCPAddr("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.ListenTCP("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	stop := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		close(stop)
	}()
	var connections sync.WaitGroup
	accept(listener, stop, &connections)
	connections.Wait()
}

func accept(listener *net.TCPListener, stop <-chan struct{}, connections *sync.WaitGroup) {
	defer listener.Close()
	for !stopped(stop) {
		listener.SetDeadline(time.Now().Add(poll))
		connection, err := listener.AcceptTCP()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			log.Print(err)
			return
		}
		connections.Add(1)
		go func() {
			defer connections.Done()
			echo(connection, stop)
		}()
	}
}

func echo(connection *net.TCPConn, stop <-chan struct{}) {
	defer connection.Close()
	buffer := make([]byte, 4096)
	for !stopped(stop) {
		connection.SetReadDeadline(time.Now().Add(poll))
		count, err := connection.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:count]); err != nil {
			return
		}
	}
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}
