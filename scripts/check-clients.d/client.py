"""Uses the generated client of the API against a running server."""

import os
from uuid import uuid4

from todo_client import AuthenticatedClient
from todo_client.api.tasks import complete_task, create_task, delete_task, delete_tasks, get_task, list_tasks, patch_task, transfer_tasks
from todo_client.models import (
    BulkResult,
    Completion,
    NewTask,
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

create_task.sync(client=guest, body=NewTask(title="Of a guest"))
moved = transfer_tasks.sync(client=client, body=TransferRequest(from_token=guest_token))
assert moved == TransferResult(moved=1, remaining=0), moved
assert delete_task.sync_detailed(task.id, client=client).status_code == 204
erased = delete_tasks.sync(client=client, all_=True)
assert erased == BulkResult(matched=1, changed=1), erased
