# Types of the compiled module. One section a file of rust/py/src; stubtest checks them.

DEBUG_BUILD: bool
VERSION: str

# catalogue.rs
def catalogue() -> str: ...
def check_filter(use: str, params_json: str) -> list[tuple[str, str]]: ...

# floor.rs
def harness_floor() -> dict[str, float]: ...
