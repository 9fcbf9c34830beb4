"""Uses the generated client of the API against a running server."""

import os
from uuid import uuid4

from todo_client import AuthenticatedClient
from todo_client.api.tasks import (
    complete_task,
    count_tasks,
    create_task,
    delete_task,
    delete_tasks,
    get_task,
    list_tasks,
    move_task,
    patch_task,
    patch_tasks,
    summarize_tasks,
    transfer_tasks,
)
from todo_client.models import (
    BulkPatch,
    BulkResult,
    Completion,
    Count,
    ListTasksSort,
    Move,
    NewTask,
    Priority,
    Summary,
    Task,
    TaskNotFoundProblem,
    TaskPatch,
    TransferRequest,
    TransferResult,
    ValidationFailedProblem,
)

url, token, guest_token = (os.environ[name] for name in ("TODO_URL", "TODO_TOKEN", "TODO_GUEST"))
client = AuthenticatedClient(url, token)
guest = AuthenticatedClient(url, guest_token)

created = create_task.sync_detailed(client=client, body=NewTask(title="Buy milk", description="Two bottles"))
task = created.parsed
assert created.status_code == 201 and isinstance(task, Task), created
assert (task.title, task.description, task.completed, task.version) == ("Buy milk", "Two bottles", False, 1), task

assert list_tasks.sync(client=client, limit=10, completed=False) == [task]
done = complete_task.sync(task.id, client=client, body=Completion(completed=True))
assert isinstance(done, Task) and done.completed, done

# Errors have the type of their status.
invalid = patch_task.sync(task.id, client=client, body=TaskPatch(title=" "))
assert isinstance(invalid, ValidationFailedProblem) and invalid.field_errors, invalid
assert invalid.field_errors.additional_properties == {"title": ["must not be blank"]}, invalid
missing = get_task.sync(uuid4(), client=client)
assert isinstance(missing, TaskNotFoundProblem) and missing.status == 404, missing

# Several tasks at once, filters, a sort, and changes of many tasks.
several = create_task.sync(
    client=client,
    body=[
        NewTask(title="Water", due="2026-12-01T17:00[Europe/Berlin]", priority=Priority.HIGH, list_="Home", tags=["plants"]),
        NewTask(title="Sow", due="2026-11-30", list_="Home"),
    ],
)
assert isinstance(several, list) and [each.title for each in several] == ["Water", "Sow"], several
assert several[0].due == "2026-12-01T17:00:00+01:00[Europe/Berlin]" and several[0].tags == ["plants"], several
due = list_tasks.sync(client=client, list_=["Home"], due_before="2026-12-02", sort=ListTasksSort.DUE)
assert isinstance(due, list) and [each.title for each in due] == ["Sow", "Water"], due
assert count_tasks.sync(client=client, tag=["plants"], priority=[Priority.HIGH, Priority.LOW]) == Count(count=1)
renamed = patch_tasks.sync(client=client, list_=["Home"], body=BulkPatch(list_="Garden"))
assert renamed == BulkResult(matched=2, changed=2), renamed
moved_task = move_task.sync(several[1].id, client=client, body=Move(before=several[0].id))
assert isinstance(moved_task, Task) and moved_task.position < several[0].position, moved_task
summary = summarize_tasks.sync(client=client)
assert isinstance(summary, Summary) and [(each.name, each.total) for each in summary.lists] == [("Garden", 2)], summary
assert delete_tasks.sync(client=client, list_=["Garden"]) == BulkResult(matched=2, changed=2)

create_task.sync(client=guest, body=NewTask(title="Of a guest"))
moved = transfer_tasks.sync(client=client, body=TransferRequest(from_token=guest_token))
assert moved == TransferResult(moved=1, remaining=0), moved
assert delete_task.sync_detailed(task.id, client=client).status_code == 204
erased = delete_tasks.sync(client=client, all_=True)
assert erased == BulkResult(matched=1, changed=1), erased
