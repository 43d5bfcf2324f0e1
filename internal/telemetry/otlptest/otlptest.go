// Package otlptest has receivers of OTLP for tests: what an exporter sends to them over HTTP or
// gRPC is decoded as a collector decodes it.
package otlptest

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	spanpb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Span is a span that was received.
type Span struct {
	Service, Name       string
	TraceID, ID, Parent string
	Kind                spanpb.Span_SpanKind
	Failed              bool
	Begin, End          uint64
	Attributes          map[string]string
	Links               []string // the ids of the spans to which it has links
	Resource            map[string]string
	Schema              string // of the semantic conventions
}

// Receiver is a collector. It is safe for concurrent use.
type Receiver struct {
	collector.UnimplementedTraceServiceServer
	URL string

	mu    sync.Mutex
	spans []Span
}

// New returns a receiver over HTTP, which ends with the test.
func New(t testing.TB) *Receiver {
	t.Helper()
	r := &Receiver{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var export collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &export)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.add(&export)
		w.Header().Set("Content-Type", "application/x-protobuf")
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// NewGRPC returns a receiver over gRPC, which ends with the test.
func NewGRPC(t testing.TB) *Receiver {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Receiver{URL: "http://" + listener.Addr().String()}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // until Stop
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return r
}

// NewHanging returns the address of a receiver that accepts connections and never answers, and a
// channel that gets a value when a request comes, if it has room.
func NewHanging(t testing.TB) (address string, asked <-chan struct{}) {
	t.Helper()
	requests, leave := make(chan struct{}, 1), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case requests <- struct{}{}:
		default:
		}
		select {
		case <-leave:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(leave); server.Close() })
	return server.URL, requests
}

// Export implements the trace service of a collector.
func (r *Receiver) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (
	*collector.ExportTraceServiceResponse, error) {
	r.add(request)
	return &collector.ExportTraceServiceResponse{}, nil
}

// Spans returns what was received so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

func (r *Receiver) add(request *collector.ExportTraceServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		about := texts(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				span := Span{Service: about["service.name"], Resource: about, Name: s.GetName(),
					TraceID: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()),
					Parent: hex.EncodeToString(s.GetParentSpanId()), Kind: s.GetKind(),
					Failed: s.GetStatus().GetCode() == spanpb.Status_STATUS_CODE_ERROR,
					Begin:  s.GetStartTimeUnixNano(), End: s.GetEndTimeUnixNano(),
					Attributes: texts(s.GetAttributes()), Schema: scope.GetSchemaUrl()}
				for _, l := range s.GetLinks() {
					span.Links = append(span.Links, hex.EncodeToString(l.GetSpanId()))
				}
				r.spans = append(r.spans, span)
			}
		}
	}
}

// texts returns attributes as texts.
func texts(list []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range list {
		if s, ok := a.GetValue().GetValue().(*common.AnyValue_StringValue); ok {
			m[a.GetKey()] = s.StringValue
		} else {
			m[a.GetKey()] = a.GetValue().String()
		}
	}
	return m
}
