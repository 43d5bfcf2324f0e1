package consistency_test

import (
	"flag"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "4") // the tests mostly wait for servers
	os.Exit(m.Run())
}
