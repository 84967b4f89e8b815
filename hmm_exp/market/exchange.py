"""Public candles of a crypto exchange by the library ccxt, the extra `ccxt` of this package.

>>> exchange = Exchange.of("binance", ["BTC/USDT"], "1h")
>>> file = CandleFile.open(Path("btc.parquet"), Series("binance", "BTC/USDT", "1h"))
>>> exchange.download(file, since=1_577_836_800_000)

Nothing here needs an account. No key is read or sent.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hmm_exp.config import nearest
from hmm_exp.errors import ConfigError, DownloadError
from hmm_exp.market.candles import CandleFile, candles

PAUSES = (1, 2, 4, 8, 16)  # s, after requests that failed
LONGEST_PAUSE = 300  # s, that an exchange may ask for
_ADDRESS = re.compile(r"^https?://[^/]+")
_HOST = re.compile(r"https?://[^/@\s?#]+/?")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Exchange:
    """An exchange with its markets, for candles of one timeframe.

    Attributes
    ----------
    client
        The exchange of ccxt.
    timeframe
        Length of a candle, such as 1h.
    note
        Takes a line when a request is repeated.
    """

    client: Any
    timeframe: str
    note: Callable[[str], None] = lambda line: None

    @classmethod
    def of(
        cls,
        name: str,
        symbols: Sequence[str],
        timeframe: str,
        url: str | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> "Exchange":
        """Load the markets of an exchange and check the symbols.

        Parameters
        ----------
        name
            The exchange, such as "binance".
        symbols
            Symbols of ccxt: "BTC/USDT" is a spot market, "BTC/USDT:USDT" a perpetual.
        timeframe
            Length of a candle, such as "1h".
        url
            Scheme and host that take the place of the exchange's own; None keeps them.
        note
            Takes a line when a request is repeated.

        Raises
        ------
        ConfigError
            ccxt is not installed, or the exchange, a symbol or the timeframe is unknown.
        DownloadError
            The exchange does not answer, or refuses.
        """
        client = _client(name, url)
        _check_timeframe(client, timeframe)
        _skip_derivatives(client, symbols)
        exchange = cls(client, timeframe, note)
        markets = exchange._patiently(client.load_markets)
        for symbol in symbols:
            if symbol not in markets:
                raise ConfigError(
                    f"data.symbol={symbol}: no such market{nearest(symbol, markets)} among the "
                    f"{len(markets):,} of {name}"
                )
        return exchange

    @property
    def step(self) -> int:
        """Length of a candle in milliseconds."""
        return self.client.parse_timeframe(self.timeframe) * 1000

    def download(
        self,
        file: CandleFile,
        since: int,
        until: int | None = None,
        progress: Callable[[int, float], None] = lambda candles, share: None,
    ) -> int:
        """Add the closed candles after the last one of a file, and return their number.

        Whatever stops it, the file keeps the candles that arrived.

        Parameters
        ----------
        file
            Of this exchange and timeframe.
        since
            First open of a new file, epoch milliseconds.
        until
            Latest close, epoch milliseconds; None and later ones: the time of the exchange.
        progress
            Takes the number of new candles and the share of the span that is done.

        Raises
        ------
        DownloadError
            The exchange does not answer, or refuses.
        OSError
            The file cannot be written.
        """
        symbol, before, done = file.series.symbol, len(file.frame), 0
        limit = self.client.feature_value(symbol, "fetchOHLCV", "limit")
        begin = since if file.last is None else file.last + self.step
        now = self._now()
        end = file.end = now if until is None else min(until, now)

        def fetch(time: int) -> list[list[float]]:
            call = self.client.fetch_ohlcv
            return self._patiently(lambda: call(symbol, self.timeframe, time, limit))

        try:
            for page in candles(fetch, begin, self.step, end):
                file.append(page)
                done += len(page.rows)
                if page.rows:
                    progress(done, (page.rows[-1][0] + self.step - begin) / (end - begin))
        finally:
            file.save()
        return len(file.frame) - before

    def _now(self) -> int:
        """Time of the exchange, else of this machine, epoch milliseconds."""
        knows = self.client.has["fetchTime"] is True
        answer = self._patiently(self.client.fetch_time) if knows else None
        return int(answer or time.time() * 1000)

    def _patiently(self, request: Callable[[], Result]) -> Result:
        """The answer to a request, which is repeated while the exchange does not give one."""
        from ccxt.base.errors import BadResponse, BaseError

        pauses = list(PAUSES)
        while True:
            try:
                answer = self._answer(request)
                if not answer and self.client.last_json_response is None:  # ccxt takes it as empty
                    raise BadResponse(f"{self.client.id} answers, but not in JSON: a web page?")
                return answer
            except BaseError as error:
                if not _may_pass(error):
                    raise DownloadError(_words(error)) from None
                pause = max(self._asked_pause(error), pauses[0] if pauses else 0)
                if not pauses or pause > LONGEST_PAUSE:
                    waits = f"; it asks for a pause of {pause:,} s" if pauses else ""
                    raise DownloadError(f"no answer: {_words(error)}{waits}") from None
                self.note(f"trying again in {pause} s: {_words(error)}")
                del pauses[0]
            time.sleep(pause)

    def _answer(self, request: Callable[[], Result]) -> Result:
        """What ccxt makes of an answer, of which it takes for granted that it is as documented."""
        from ccxt.base.errors import BadResponse

        try:
            return request()
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise BadResponse(f"{self.client.id} answers something else than asked for") from error

    def _asked_pause(self, error: Exception) -> int:
        """Seconds that an exchange which limits the rate asks for, else 0."""
        if not _limits_rate(error):
            return 0
        asked = (self.client.last_response_headers or {}).get("Retry-After", "")
        return int(asked) if asked.isdecimal() else 0


def _limits_rate(error: Exception) -> bool:
    from ccxt.base.errors import DDoSProtection, RateLimitExceeded

    return isinstance(error, DDoSProtection | RateLimitExceeded)


def _may_pass(error: Exception) -> bool:
    """Whether a later request may succeed: not where the exchange refuses this one."""
    from ccxt.base.errors import OperationFailed

    response = getattr(error.__context__, "response", None)  # of an HTTPError of requests
    status = 0 if response is None else response.status_code
    refuses = 400 <= status < 500
    return (
        _limits_rate(error) or status >= 500 or (isinstance(error, OperationFailed) and not refuses)
    )


def _words(error: Exception) -> str:
    """The error of ccxt, with what the network said."""
    of_requests = error.__context__.args if error.__context__ else ()
    reason = getattr(of_requests[0], "reason", None) if of_requests else None
    said = f": {str(reason).partition(': ')[2]}" if isinstance(reason, Exception) else ""
    return f"{error} ({type(error).__name__}{said})"


def _client(name: str, url: str | None) -> Any:
    """The exchange of ccxt, which keeps to the rate limit and has candles."""
    try:
        import ccxt
    except ImportError:
        raise ConfigError("downloads need ccxt: pip install 'hmm_exp[ccxt]'") from None
    if name not in ccxt.exchanges:
        raise ConfigError(
            f"data.exchange={name}: no such exchange{nearest(name, ccxt.exchanges)} among the "
            f"{len(ccxt.exchanges)} of ccxt {ccxt.__version__}"
        )
    settings = ("enableRateLimit", "enableLastJsonResponse", "requests_trust_env")
    client = getattr(ccxt, name)(dict.fromkeys(settings, True))
    client.session.auth = lambda request: request  # proxies of the environment, no login of .netrc
    if client.has["fetchOHLCV"] is not True:
        raise ConfigError(f"data.exchange={name}: this exchange gives no candles")
    if url is not None:
        if not _HOST.fullmatch(url):
            raise ConfigError(f"data.url={url}: must be http:// or https:// and a host")
        client.urls["api"] = _moved(client.urls["api"], url.rstrip("/"))
    return client


def _moved(urls: Any, url: str) -> Any:
    """Addresses with another scheme and host."""
    if isinstance(urls, dict):
        return {name: _moved(value, url) for name, value in urls.items()}
    return _ADDRESS.sub(url, urls) if isinstance(urls, str) else urls


def _check_timeframe(client: Any, timeframe: str) -> None:
    """Refuse what the exchange does not have, and months and years, whose length varies."""
    known = [name for name in client.timeframes or {} if not name.endswith(("M", "y"))]
    if timeframe not in known:
        raise ConfigError(f"data.timeframe={timeframe}: {client.id} has {', '.join(known)}")


def _skip_derivatives(client: Any, symbols: Sequence[str]) -> None:
    """Let ccxt load the spot markets alone, where it can, if no symbol is of a derivative."""
    options = client.options.get("fetchMarkets")
    types = options.get("types") if isinstance(options, dict) else None
    if isinstance(types, list) and "spot" in types and not any(":" in name for name in symbols):
        options["types"] = ["spot"]
