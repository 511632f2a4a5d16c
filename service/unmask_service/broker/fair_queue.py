"""Fair queueing: whose job is next. The broker in memory uses it; claim.lua does the same in Redis."""


class FairQueue:
    """Waiting jobs of any number of clients, taken by start-time fair queueing.

    Each client has its turn, in virtual time. The client whose turn is earliest is next, with the job that it has
    waited for longest; then its turn moves on by the job's cost. So clients that always have a job waiting share the
    engines equally, however many jobs each has, and the jobs of one client are taken in the order of their arrival.

    Source: Goyal, Vin, Cheng, Start-time Fair Queueing (SIGCOMM 1996). Here a job costs nothing before it is taken, so
    that one which is cancelled while it waits leaves no trace.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, tuple[int, float]]] = {}  # client → job's id → arrival, cost
        self._turns: dict[str, float] = {}
        self._now = 0.0  # the turn of the job that was taken last
        self._arrivals = 0

    @property
    def ahead(self) -> dict[str, float]:
        """By how much the turns of clients are later than that of the job which was taken last."""
        return {client: turn - self._now for client, turn in self._turns.items() if turn > self._now}

    def put(self, job_id: str, client: str, cost: float) -> None:
        """Add a job. A client with no other job waiting has its turn now at the earliest: it saves none up."""
        if client not in self._waiting:
            self._turns[client] = max(self._now, self._turns.get(client, 0.0))
        self._arrivals += 1
        self._waiting.setdefault(client, {})[job_id] = self._arrivals, cost

    def take(self) -> str | None:
        """Remove the next job; None if there is none, and then all turns are forgotten."""
        if not self._waiting:
            self._turns.clear()
            return None
        heads = {client: next(iter(jobs.items())) for client, jobs in self._waiting.items()}
        client = min(heads, key=lambda each: (self._turns[each], heads[each][1][0]))  # of equal turns the first arrival
        job_id, (_, cost) = heads[client]
        self._now = self._turns[client]
        self._turns[client] += cost
        self.remove(job_id, client)
        return job_id

    def remove(self, job_id: str, client: str) -> None:
        """Remove a job that waits."""
        del self._waiting[client][job_id]
        if not self._waiting[client]:
            del self._waiting[client]
