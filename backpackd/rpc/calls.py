"""What every call goes through: the rules of its method, and the request's form.

A service is an object with one method for each RPC of its proto service, named in snake case:
`(call, request) -> response`, or an async generator if the proto says stream. If requests are a
stream, the method gets an iterator over them. What the method raises becomes the call's status.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Protocol, TypeVar

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from backpackd.application.callers.operators import Operators
from backpackd.application.callers.peers import check_user
from backpackd.application.deadlines import Deadlines
from backpackd.application.vault.vault import Vault
from backpackd.core.errors import InvalidRequestError, LimitError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.vault import states
from backpackd.ports import Call, Connection
from backpackd.rpc.methods import METHODS, Caller, Rules
from backpackd.rpc.sizes import check_size, size_of

_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_Message = TypeVar("_Message", bound=Message)

MOST_OPEN = 64
"""The most calls of one process tree that stay open. They do not count as calls in progress, so
they need a bound of their own."""


class Service(Protocol):
    """One gRPC service.

    Attributes:
        descriptor: the service in its proto file.
    """

    descriptor: ServiceDescriptor


class Guard:
    """Enforces the rules of methods.

    Args:
        vault: the rules depend on its state, and calls count as its use.
        operators: which connections have operator authority.
        deadlines: reviewed after methods that change them.
    """

    def __init__(self, vault: Vault, operators: Operators, deadlines: Deadlines) -> None:
        self._vault = vault
        self._operators = operators
        self._deadlines = deadlines
        self._open: Counter[ProcessId] = Counter()

    def admit(self, rules: Rules, connection: Connection) -> None:
        """Raise unless a connection may call a method now, as far as no request decides it.

        Raises:
            UserChangedError: the process that connected now runs as another user.
            LockedError: the vault is locked, and the method needs it unlocked.
            UninitializedError: there is no vault yet, and the method needs one.
            NotAuthorizedError: the method needs operator authority.
        """
        check_user(connection.peer)
        if not rules.locked:
            states.require_unlocked(self._vault.state)
        if rules.caller is Caller.OPERATOR:
            self._operators.require(connection)

    def admit_request(self, rules: Rules, connection: Connection, request: Any) -> None:
        """Raise unless a connection may make this request.

        Raises:
            NotAuthorizedError: the request needs operator authority.
        """
        if rules.caller is Caller.OPERATOR_FOR_ALL and request.all:
            self._operators.require(connection)

    def succeeded(self, rules: Rules) -> None:
        """Count the use and review deadlines, if the rules say so, after a call that succeeded."""
        if rules.use:
            self._vault.touch()
        if rules.review:
            self._deadlines.review()

    @contextmanager
    def open(self, tree: ProcessId) -> Iterator[None]:
        """Count a call that stays open.

        Raises:
            LimitError: this process tree has too many such calls.
        """
        if self._open[tree] >= MOST_OPEN:
            raise LimitError("too many open calls of this process tree: end some first")
        self._open[tree] += 1
        try:
            yield
        finally:
            self._open[tree] -= 1
            if not self._open[tree]:
                del self._open[tree]


class ServedMethod:
    """One method of a service: it takes and returns encoded messages.

    Implements `ports.Method`.
    """

    def __init__(
        self, guard: Guard, service: Service, descriptor: MethodDescriptor, rules: Rules
    ) -> None:
        """Connect a method, its messages and its rules.

        Raises:
            AttributeError: the service has no such method.
        """
        self._guard = guard
        self._rules = rules
        self._work: Callable[[Call, Any], Any] = getattr(service, snake_case(descriptor.name))
        self._message = GetMessageClass(descriptor.input_type)
        self._answers = descriptor.server_streaming
        self.streaming = descriptor.client_streaming
        self.stays_open = rules.stays_open
        self.longest = size_of(descriptor.input_type).bytes

    async def serve(self, call: Call) -> None:
        """Serve a call: admit it, have it answered, and do what is due afterwards."""
        self._guard.admit(self._rules, call.connection)
        if self.stays_open:
            with self._guard.open(call.connection.tree):
                await self._answer(call)
        else:
            await self._answer(call)

    async def _answer(self, call: Call) -> None:
        request: Any
        if self.streaming:
            request = self._requests(call)
        else:
            request = self._parse(call.connection, await call.receive() or b"")
        if not self._answers:
            response: Message = await self._work(call, request)
            self._guard.succeeded(self._rules)
            await call.send(response.SerializeToString(), last=True)
            return
        first = True
        # Closed at once, not when it is collected: what it holds must end with the call.
        async with aclosing(self._work(call, request)) as responses:
            async for response in responses:
                if not self.stays_open:
                    # Finding the first answer may have taken long, and a slow reader may take its
                    # time with each: what is still to come is as telling.
                    self._readmit(call, request)
                if first:
                    self._guard.succeeded(self._rules)
                    first = False
                await call.send(response.SerializeToString())

    async def _requests(self, call: Call) -> AsyncIterator[Message]:
        while (raw := await call.receive()) is not None:
            yield self._parse(call.connection, raw)
        if not self.stays_open:
            # Receiving all messages may have taken long.
            self._guard.admit(self._rules, call.connection)

    def _readmit(self, call: Call, request: Any) -> None:
        self._guard.admit(self._rules, call.connection)
        if not self.streaming:
            self._guard.admit_request(self._rules, call.connection, request)

    def _parse(self, connection: Connection, raw: bytes) -> Message:
        request = parse(self._message, raw)
        self._guard.admit_request(self._rules, connection, request)
        return request


def served_methods(
    guard: Guard, services: Iterable[Service], rules: dict[str, Rules] = METHODS
) -> dict[bytes, ServedMethod]:
    """Return the methods of services by the paths of their requests.

    Args:
        guard: enforces the rules.
        services: all services.
        rules: the rules of every method, by its full name.

    Raises:
        KeyError: a method has no rules.
        AttributeError: a service lacks a method.
    """
    found = {}
    for service in services:
        name = service_name(service)
        for descriptor in service.descriptor.methods:
            row = rules[f"{name}.{descriptor.name}"]
            path = f"/{name}/{descriptor.name}".encode()
            found[path] = ServedMethod(guard, service, descriptor, row)
    return found


def service_name(service: Service) -> str:
    """Return the full name by which clients call a service."""
    name: str = getattr(service, "name", service.descriptor.full_name)
    return name


def snake_case(name: str) -> str:
    """Return the name of the method that serves an RPC."""
    return _WORD.sub("_", name).lower()


def parse(kind: type[_Message], raw: bytes) -> _Message:
    """Parse a request.

    Raises:
        InvalidRequestError: the bytes are not such a message.
        LimitError: it is larger than this call accepts; no part of it was parsed.
    """
    check_size(kind.DESCRIPTOR, raw)
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise InvalidRequestError(
            "the request is not the message that this call expects", reason="malformed-request"
        ) from None
