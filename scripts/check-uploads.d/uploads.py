"""Uploads with real clients, for scripts/check-uploads. Prints a row of the table for each client and framework."""

import argparse
import base64
import collections
import hashlib
import hmac
import io
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import httpx

FOLDER = pathlib.Path(__file__).parent
users = (f"user-{os.getpid()}-{number}" for number in itertools.count())


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(user):
    """A token of HS256, as todo-server reads it."""
    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + 3600}
    parts = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
    signature = hmac.digest(os.environ["BETTER_AUTH_SECRET"].encode(), parts.encode(), hashlib.sha256)
    return f"{parts}.{encoded(signature)}"


def plan(count, size, spent):
    """Requests that are rejected before their body is read, each with the status of its response."""
    def signed(user, **headers):
        return {"authorization": f"Bearer {token(user)}", "content-type": "application/json", **headers}

    def of(status, user):
        match status:
            case 401: return ("POST", "/api/tasks", {"content-type": "application/json"})
            case 403: return ("POST", "/api/somebody/tasks", signed(user))
            case 404: return ("POST", "/nowhere", {})
            case 405: return ("PUT", "/api/tasks", signed(user))
            case 413: return ("POST", "/api/tasks", signed(user))
            case 415: return ("POST", "/api/tasks", {**signed(user), "content-type": "text/plain"})
            # A query is checked, and a body of a deletion is not read.
            case 422: return ("DELETE", "/api/tasks/0194f0b2-7a5e-7c3e-8d5f-3a1b2c3d4e5f?x=1", signed(user))
            case 429: return ("POST", "/api/tasks", signed(spent))

    # Up to the limit of 64 KiB, a body is read.
    statuses = [401, 403, 404, 405, 413, 415, 422, 429] if size > 65536 else [401, 403, 404, 405, 415, 422, 429]
    wanted = itertools.islice(itertools.cycle(statuses), count)
    return [(status, *of(status, next(users))) for status in wanted]


def with_httpx(url, requests, body):
    # A file is sent in pieces of 64 KiB. Of bytes, httpcore copies the rest for each frame, which takes seconds for 20 MB.
    with httpx.Client(http1=False, http2=True, timeout=60) as client:
        for status, method, path, headers in requests:
            try:
                response = client.request(method, url + path, headers=headers, content=io.BytesIO(body))
                yield status, response.status_code if response.http_version == "HTTP/2" else response.http_version
            except httpx.HTTPError as error:
                yield status, f"{type(error).__name__}: {error}"


def with_curl(version):
    def run(url, requests, body):
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            for status, method, path, headers in requests:
                command = ["curl", version, "--silent", "--show-error", "--max-time", "60", "--request", method]
                command += ["--output", "/dev/null", "--write-out", "%{http_code}", "--data-binary", f"@{file.name}"]
                command += itertools.chain.from_iterable(("--header", f"{name}: {value}") for name, value in headers.items())
                done = subprocess.run([*command, url + path], capture_output=True, text=True)
                yield status, int(done.stdout) if done.returncode == 0 else f"curl {done.returncode}: {done.stderr.strip()}"
    return run


def with_fetch(url, requests, body):
    asked = json.dumps({"url": url, "size": len(body), "requests": requests})
    done = subprocess.run(["node", str(FOLDER / "fetch.mjs")], input=asked, capture_output=True, text=True, check=True)
    return zip((status for status, *_ in requests), json.loads(done.stdout), strict=True)


CLIENTS = {
    "Node fetch, HTTP/1.1": with_fetch,
    "curl, HTTP/1.1": with_curl("--http1.1"),
    "curl, HTTP/2": with_curl("--http2-prior-knowledge"),
    "Python httpx, HTTP/2": with_httpx,
}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("framework")
    arguments.add_argument("--head", action="store_true")
    arguments.add_argument("--count", type=int, default=50)
    arguments.add_argument("--sizes", default="20000,200000,2000000,20000000")
    options = arguments.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if options.head:
        print("| client | framework |", *(f"{size / 1000:g} kB |" for size in sizes))
        print("| --- | --- |", *("---: |" for _ in sizes), flush=True)
    # Uses up the quota of one user.
    spent = next(users)
    httpx.get(f"{options.url}/api/tasks", headers={"authorization": f"Bearer {token(spent)}"}).raise_for_status()
    failures = collections.Counter()
    for name, run in CLIENTS.items():
        cells = []
        for size in sizes:
            results = list(run(options.url, plan(options.count, size, spent), b"x" * size))
            failed = [(wanted, got) for wanted, got in results if wanted != got]
            cells.append(f"{len(failed)} |")
            failures.update(f"{name}, {size} bytes: {wanted} is {got}" for wanted, got in failed)
        print(f"| {name} | {options.framework} |", *cells, flush=True)
    for failure, times in failures.most_common():
        print(f"{times} times: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


main()
