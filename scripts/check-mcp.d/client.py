"""Two users at once use the tools of a running server, each through the SDK of the protocol."""

import asyncio
import os
import secrets
import sys
import time

import httpx2
import jsonschema
import jwt
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

URL = sys.argv[1]
TOOLS = "list_tasks search_tasks add_task change_task complete_task move_task delete_task summarize_tasks".split()
# By how much the verifier lets clocks differ, in seconds.
LEEWAY = 30


def token(user: str, valid_for: float = 600) -> str:
    now = int(time.time())
    return jwt.encode({"sub": user, "iat": now, "exp": int(now + valid_for)}, os.environ["BETTER_AUTH_SECRET"], "HS256")


class User:
    """A user with an open connection."""

    def __init__(self, name: str, http: httpx2.AsyncClient, client: Client) -> None:
        self.name, self.http, self.client = name, http, client
        self.schemas: dict[str, object] = {}

    async def call(self, tool: str, **arguments: object) -> dict:
        """Calls a tool with arguments that its schema must accept."""
        jsonschema.validate(arguments, self.schemas[tool], jsonschema.Draft202012Validator)
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, (self.name, tool, arguments, result)
        return result.structured_content

    async def fail(self, tool: str, **arguments: object) -> dict:
        """Calls a tool that must fail, and returns its error."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error and result.structured_content, (self.name, tool, arguments, result)
        return result.structured_content

    async def titles(self, tool: str = "list_tasks", **arguments: object) -> list[str]:
        return [task["title"] for task in (await self.call(tool, **arguments))["tasks"]]


async def rejected(user: User) -> httpx2.Response:
    """The response to a tool call that is rejected before it reaches a tool."""
    responses: list[httpx2.Response] = []

    async def note(response: httpx2.Response) -> None:
        responses.append(response)

    user.http.event_hooks = {"response": [note]}
    try:
        result = await user.client.call_tool("list_tasks", {})
    except MCPError:
        user.http.event_hooks = {}
        return responses[-1]
    raise AssertionError(f"{user.name} is not rejected: {result}")


async def raw(method: str, bearer: str | None, session: str) -> httpx2.Response:
    """Sends a request with the id of a session."""
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "Mcp-Session-Id": session,
        "Last-Event-ID": "0",
    } | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_tasks", "arguments": {}}}
    async with httpx2.AsyncClient(timeout=5) as http:
        return await http.request(method, URL, headers=headers, json=call if method == "POST" else None)


async def use(name: str, mode: str, barrier: asyncio.Barrier, ids: dict[str, str]) -> None:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token(name)}"}) as http:
        sessions: list[str] = []

        async def note(response: httpx2.Response) -> None:
            sessions.extend(filter(None, [response.headers.get("mcp-session-id")]))

        http.event_hooks = {"response": [note]}
        async with Client(streamable_http_client(URL, http_client=http), mode=mode) as client:
            user = User(name, http, client)
            tools = (await client.list_tools()).tools
            assert sorted(tool.name for tool in tools) == sorted(TOOLS), tools
            user.schemas = {tool.name: tool.input_schema for tool in tools}
            for schema in user.schemas.values():
                jsonschema.Draft202012Validator.check_schema(schema)
                assert schema["type"] == "object" and "$ref" not in str(schema), schema
            print(f"{name}: {client.protocol_version}, {len(tools)} tools")

            assert await user.titles() == []
            milk = (await user.call("add_task", title=f"Milk of {name}", list="Groceries", tags=["home"]))["task"]
            bread = (await user.call("add_task", title=f"Bread of {name}", list="Groceries", priority="high"))["task"]
            call_task = (await user.call("add_task", title=f"Call of {name}", due="2026-12-01"))["task"]
            ids[name] = milk["id"]
            await barrier.wait()
            print(f"{name}: added 3")

            # Each sees three tasks and cannot touch those of the other.
            assert await user.titles(sort="title") == [f"{what} of {name}" for what in ("Bread", "Call", "Milk")]
            assert await user.titles("search_tasks", q="milk") == [f"Milk of {name}"]
            assert await user.titles(tag=["home"], completed=False) == [f"Milk of {name}"]
            foreign = next(task for owner, task in ids.items() if owner != name)
            for tool, more in [
                ("change_task", {"title": "Mine"}),
                ("complete_task", {}),
                ("move_task", {"first": True}),
                ("delete_task", {}),
            ]:
                assert (await user.fail(tool, id=foreign, **more))["code"] == "task_not_found", tool
            assert (await user.fail("move_task", id=milk["id"], after=foreign))["code"] == "validation_failed"
            print(f"{name}: searched; the other's task is not found")

            changed = (await user.call("change_task", id=milk["id"], version=1, title="Oat milk", tags=None))["task"]
            assert (changed["title"], changed["tags"], changed["version"]) == ("Oat milk", [], 2), changed
            conflict = await user.fail("change_task", id=milk["id"], version=1, title="Goat milk")
            assert conflict["code"] == "version_conflict" and conflict["current"] == changed, conflict
            invalid = await user.fail("change_task", id=milk["id"], title=" ", due="tomorrow")
            assert sorted(invalid["field_errors"]) == ["due", "title"], invalid
            done = (await user.call("complete_task", id=bread["id"]))["task"]
            again = (await user.call("complete_task", id=bread["id"]))["task"]
            assert done["completed"] and again == done, again
            await user.call("move_task", id=call_task["id"], first=True)
            await user.call("move_task", id=bread["id"], after=call_task["id"])
            order = await user.titles(sort="position")
            assert order == [f"Call of {name}", f"Bread of {name}", "Oat milk"], order
            summary = await user.call("summarize_tasks")
            assert (summary["total"], summary["open"]) == (3, 2), summary
            assert summary["lists"] == [{"name": "Groceries", "open": 1, "total": 2}], summary
            page = await user.call("list_tasks", limit=2)
            rest = await user.call("list_tasks", limit=2, cursor=page["next"])
            assert len(page["tasks"]) == 2 and len(rest["tasks"]) == 1 and rest["next"] is None, (page, rest)
            print(f"{name}: changed, completed, moved, summarized; a conflict and invalid fields were explained")

            # No id of a session opens the tasks of its user.
            await barrier.wait()
            other = next(owner for owner in ids if owner != name)
            for session in [*sessions, "0", name]:
                stolen = await raw("POST", token(other), session)
                assert stolen.status_code in (200, 404) and name not in stolen.text and "Oat" in stolen.text, stolen.text
                for method in ("GET", "DELETE"):
                    assert (await raw(method, token(other), session)).status_code in (404, 405), method
                for method in ("POST", "GET", "DELETE"):
                    assert (await raw(method, None, session)).status_code == 401, method
            await barrier.wait()
            assert len(await user.titles()) == 3
            print(f"{name}: the id of a session opens nothing")

            # The token expires between two calls.
            http.event_hooks = {}
            http.headers["Authorization"] = f"Bearer {token(name, 2 - LEEWAY)}"
            assert len(await user.titles()) == 3
            await asyncio.sleep(3)
            response = await rejected(user)
            challenge = response.headers["www-authenticate"]
            assert response.status_code == 401 and challenge.startswith('Bearer error="invalid_token"'), response
            http.headers["Authorization"] = f"Bearer {token(name)}"
            print(f"{name}: 401 {challenge}; with a new token it goes on")

            for task in (await user.call("list_tasks"))["tasks"]:
                assert await user.call("delete_task", id=task["id"], version=task["version"]) == {"deleted": task["id"]}
            assert (await user.fail("delete_task", id=milk["id"]))["code"] == "task_not_found"
            assert await user.titles() == []
            print(f"{name}: deleted 3")


async def main() -> None:
    # Other names at each run: a database may be used again.
    ann, bob = (f"{name}-{secrets.token_hex(3)}" for name in ("ann", "bob"))
    for modes in (("auto", "legacy"), ("legacy", "auto")):
        barrier, ids = asyncio.Barrier(2), {}
        async with asyncio.TaskGroup() as group:
            for name, mode in zip((ann, bob), modes):
                group.create_task(use(name, mode, barrier, ids))


asyncio.run(asyncio.wait_for(main(), 50))
