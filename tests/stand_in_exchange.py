"""A stand-in for the public HTTP interface of Binance, on loopback: markets, time and klines."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qsl, urlsplit

HOUR = 3_600_000
BEGIN = 1_577_836_800_000  # 2020-01-01


@dataclass
class StandIn:
    """What the exchange holds, and what goes wrong.

    Attributes
    ----------
    n_candles
        Closed candles of an hour since `BEGIN`; one more is open.
    page
        Candles of a page at most.
    missing
        Places of candles that do not exist.
    faults
        Number of a request for candles, from 1: a status, "drop" to close the connection, "page" to
        send a web page, "object" for JSON that holds no candles, or "stall" to give no answer until
        the end.
    garbage
        End of the address whose answers are web pages.
    doubled
        Candles at the beginning of a page that it holds twice.
    """

    n_candles: int = 250
    page: int = 100
    missing: set[int] = field(default_factory=set)
    faults: dict[int, int | str] = field(default_factory=dict)
    doubled: int = 0
    garbage: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    sent: list[dict[str, str]] = field(default_factory=list)
    stalled: Event = field(default_factory=Event)
    ended: Event = field(default_factory=Event)
    url: str = ""

    @property
    def now(self) -> int:
        """The clock: half an hour into the open candle."""
        return BEGIN + self.n_candles * HOUR + HOUR // 2

    def answer(self, path: str, query: dict[str, str]) -> object:
        """Content of an answer; None for an unknown address."""
        if path == "/api/v3/exchangeInfo":
            return {"timezone": "UTC", "serverTime": self.now, "symbols": [*map(market, BASES)]}
        if path == "/api/v3/time":
            return {"serverTime": self.now}
        return self.klines(query) if path == "/api/v3/klines" else None

    def klines(self, query: dict[str, str]) -> list[list]:
        """Candles from `startTime` on."""
        scale = BASES[query["symbol"].removesuffix("USDT")]
        places = [i for i in range(self.n_candles + 1) if i not in self.missing]
        after = [i for i in places if BEGIN + i * HOUR >= int(query["startTime"])]
        limit = min(self.page, int(query["limit"]))
        shown = after[: self.doubled] + after[:limit]
        return [kline(i, scale, is_open=i == self.n_candles) for i in shown]


BASES = {"BTC": 1.0, "ETH": 0.1}


def kline(i: int, scale: float, is_open: bool = False) -> list:
    """One candle as Binance sends it."""
    price = scale * (7000 + 13.37 * ((i * 7919) % 101))
    prices = [price, price + scale, price - scale, price + scale * (0.9 if is_open else 0.1)]
    texts = [f"{value:.8f}" for value in prices]
    begin = BEGIN + i * HOUR
    return [begin, *texts, f"{1 + i % 17}.50000000", begin + HOUR - 1, "0", 1, "0", "0", "0"]


def market(base: str) -> dict:
    """One spot market as Binance lists it."""
    return {
        "symbol": f"{base}USDT",
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "isSpotTradingAllowed": True,
        "permissions": ["SPOT"],
        "filters": [],
    }


@contextmanager
def standing_in(**options) -> Iterator[StandIn]:
    """Serve a stand-in at its `url`."""
    exchange = StandIn(**options)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            exchange.sent.append(dict(self.headers))
            fault = None
            if parts.path.endswith("/klines"):
                exchange.asked.append(query)
                fault = exchange.faults.get(len(exchange.asked))
            if fault == "stall":
                exchange.stalled.set()
                exchange.ended.wait(60)
            if fault in ("drop", "stall"):
                self.close_connection = True
                return
            content = exchange.answer(parts.path, query)
            status = fault if isinstance(fault, int) else 404 if content is None else 200
            body = json.dumps({"code": -1, "msg": "no"} if status != 200 else content).encode()
            if fault == "page" or parts.path.endswith(exchange.garbage or "?"):
                body = b"<html>a portal</html>"
            if fault == "object":
                body = b'{"foo": 1}'
            self.send_response(status)
            for name, value in exchange.headers.items() if status != 200 else ():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    exchange.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield exchange
    finally:
        exchange.ended.set()
        server.shutdown()
        server.server_close()
