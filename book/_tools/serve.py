"""Show the built book to this machine alone.

usage: serve.py PORT            until it is stopped
       serve.py PORT --check    only tells whether it could
"""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

HTML = "_build/html"


def server(port: str) -> ThreadingHTTPServer:
    """Take the port, or stop with one line that says why not and what to do."""
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        sys.exit(f"PORT={port}: a whole number from 1 to 65535 is needed")
    try:
        handler = partial(SimpleHTTPRequestHandler, directory=HTML)
        return ThreadingHTTPServer(("127.0.0.1", int(port)), handler)
    except OSError as error:
        sys.exit(f"PORT={port}: {error.strerror}; try another, as in make serve PORT=8001")


def main() -> None:
    """Serve until the reader has had enough."""
    with server(sys.argv[1]) as serving:
        if "--check" in sys.argv:
            return
        print(f"The book is at http://localhost:{sys.argv[1]} (Ctrl+C ends this)", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
