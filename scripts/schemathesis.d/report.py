"""Prints how many responses were compared for each operation; fails if there is an operation without any: COMPARED DOCUMENT"""

import json
import sys

compared, document = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:])
operations = [
    f"{method.upper()} {path}"
    for path, item in document["paths"].items()
    for method, operation in item.items()
    if method != "parameters" and operation["security"]
]
print(sum(compared.values()), "responses to alice compared with those to bob:")
for operation in operations:
    print(f"{compared.get(operation, 0):6} {operation}")
if missing := [operation for operation in operations if operation not in compared]:
    sys.exit(f"no request succeeded, so that isolation was not checked: {missing}")
