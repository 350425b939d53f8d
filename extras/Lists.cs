// What is done with many addresses at once, and with one person for good:
//
//   GET /suppressed      the list, as JSON, as CSV, or as the file that `aws sesv2 create-import-job` takes
//   POST /suppressed     an import: plain lines, CSV of other providers, JSON of `aws sesv2 list-suppressed-destinations`
//   POST /sendable       addresses in, those that are not suppressed out
//   DELETE /history/...  forgets a person: gone from everything on disk, a suppression kept under a keyed hash
//
// Nothing here is held whole in memory but 8 bytes an address while the list is sorted.

using Microsoft.AspNetCore.Server.Kestrel.Core.Features;
using Microsoft.Net.Http.Headers;
using Sylvan.Data.Csv;

static partial class Extras {
    static partial void MapLists(WebApplication app) {
        app.MapMethods("/suppressed", ["GET", "HEAD"], Lists.ListAsync);
        app.MapPost("/suppressed", Lists.ImportAsync);
        app.MapPost("/sendable", Lists.SendableAsync);
        app.MapDelete("/history/{**address}", Lists.ForgetAsync);
    }
}

static class Lists {
    const int MaxBytes = 256 << 20;

    /// <summary>GET and HEAD /suppressed: the list in the order of the addresses, streamed; a page of it with `limit`.</summary>
    public static async Task<Results<EmptyHttpResult, StatusCodeHttpResult, ProblemHttpResult>> ListAsync(
        HttpContext http, IFeedbackStore store) {
        if (http.Request.Path.Value!.EndsWith('/')) return Problem.NoAddress; // a look-up of nobody
        if (ListQuery.Read(http.Request.Query, out string wrong) is not { } query) return Problem.Of(400, wrong);
        if (query.Format != ListQuery.Json && HttpProtocol.IsHttp10(http.Request.Protocol)) return Problem.Of(505, ListQuery.NoEnd);
        // Before the list: it may be newer, never older.
        var tag = new EntityTagHeaderValue($"\"{await store.SuppressionsVersionAsync()}\"");
        var headers = http.Response.GetTypedHeaders();
        (headers.ETag, headers.CacheControl) = (tag, new() { Private = true, NoCache = true });
        bool isKnown = http.Request.GetTypedHeaders().IfNoneMatch.Any(
            known => known.Compare(tag, useStrongComparison: false) || known == EntityTagHeaderValue.Any);
        if (isKnown) return TypedResults.StatusCode(304);
        var entries = store.SuppressionsAsync(query.After, http.RequestAborted).Where(query.Has);
        string? next = null;
        if (query.Limit is { } limit) {
            var page = await entries.Take(limit + 1).ToListAsync(http.RequestAborted);
            if (page.Count > limit) {
                page.RemoveAt(limit);
                next = page[^1].Address;
                http.Response.Headers.Link = $"</suppressed{query.ToQuery(next)}>; rel=\"next\"";
            }
            entries = page.ToAsyncEnumerable();
        }
        await using var each = entries.GetAsyncEnumerator(http.RequestAborted);
        bool more = await each.MoveNextAsync(); // here it can still be a 503
        http.Response.ContentType = query.Format == ListQuery.Json ? "application/json; charset=utf-8" : "text/csv; charset=utf-8";
        if (HttpMethods.IsHead(http.Request.Method)) return TypedResults.Empty;
        await using var list = new ListWriter(http.Response.BodyWriter, query.Format);
        for (int written = 1; more; more = await each.MoveNextAsync(), written++) {
            list.Write(each.Current.Address, each.Current.Known);
            if (written % 256 == 0) await list.FlushAsync(http.RequestAborted);
        }
        list.End(next);
        return TypedResults.Empty;
    }

    /// <summary>POST /suppressed: suppresses what a list names. What is suppressed already is not written again.</summary>
    public static async Task<Results<FileContentHttpResult, ProblemHttpResult>> ImportAsync(
        HttpContext http, IFeedbackStore store, TimeProvider clock) {
        string? reason = http.Request.Query["reason"].ToString() is { Length: > 0 } given ? given : null;
        if (ListQuery.Odd(http.Request.Query, "reason") is { } odd) return Problem.Of(400, odd);
        if (reason is not null && Reason.Strength(reason) < 0) return Problem.Of(400, ListQuery.Reasons);
        if (!Admit(http)) return Problem.Of(413, "An import has 256 MiB at most.");
        var import = new Import(store, clock, reason);
        try {
            await import.ReadAsync(new Body(http.Request.Body), http.RequestAborted);
            return import.Answer();
        } catch (BadHttpRequestException e) when (e.StatusCode == 413) {
            return Problem.Of(413, "An import has 256 MiB at most. " + import.SoFar);
        } catch (JsonException e) {
            return Problem.Of(400, $"Line {e.LineNumber} is no JSON, and nothing after it was read. {import.SoFar}");
        } catch (Unavailable) {
            http.Response.Headers.RetryAfter = "5";
            return Problem.Of(503, "The import broke off, for nothing can be kept just now. " + import.SoFar);
        }
    }

    /// <summary>POST /sendable: the lines of the body whose address is not suppressed, as they came. What is no address is left out,
    /// too: X-Left-Out counts both. All of it is looked up before the first byte is sent, so a 200 is the whole list.</summary>
    public static async Task<Results<FileStreamHttpResult, ProblemHttpResult>> SendableAsync(HttpContext http, IFeedbackStore store) {
        if (!Admit(http)) return Problem.Of(413, "A list has 256 MiB at most.");
        if (Spool() is not { } spool) {
            http.Response.Headers.RetryAfter = "5";
            return Problem.Of(503, "The temporary folder cannot be written now.");
        }
        http.Response.RegisterForDispose(spool);
        try {
            var (suppressed, wrong) = await Sendable.CopyAsync(new Body(http.Request.Body), spool, store, http.RequestAborted);
            http.Response.Headers["X-Left-Out"] = $"{suppressed} suppressed, {wrong} no address";
            spool.Position = 0;
            return TypedResults.Stream(spool, "text/plain; charset=utf-8");
        } catch (BadHttpRequestException e) when (e.StatusCode == 413) { return Problem.Of(413, "A list has 256 MiB at most."); }
    }

    /// <summary>DELETE /history/{address}: forgets the person. 204 once that is done, 404 when nothing is known.</summary>
    public static async Task<Results<NoContent, ProblemHttpResult>> ForgetAsync(HttpContext http, IFeedbackStore store) {
        string address = Endpoints.AddressIn(http), key = Address.Key(address);
        if (await store.FindAsync(key) is not { } known) return Problem.Later(http);
        if (known == Known.Nothing) {
            if (!Address.IsAddress(address)) return Problem.NoAddress;
            bool complete = await store.CaughtUpAsync();
            if (!await store.EventsAsync(new(Address: key), http.RequestAborted).AnyAsync(http.RequestAborted))
                return complete ? Problem.Of(404, "Nothing is known of the address.") : Problem.Later(http);
        }
        var commit = await store.ForgetAsync(key);
        return commit == Commit.Kept ? TypedResults.NoContent() : Problem.Later(http, commit);
    }

    // These bodies may be large and come slowly (`aws ... | curl -T -`); who sends them was let in by the guard.
    static bool Admit(HttpContext http) {
        http.Features.GetRequiredFeature<IHttpMaxRequestBodySizeFeature>().MaxRequestBodySize = MaxBytes;
        if (http.Features.Get<IHttpMinRequestBodyDataRateFeature>() is { } rate) rate.MinDataRate = null;
        return !(http.Request.ContentLength > MaxBytes);
    }

    // Without a name as soon as it is open, so nothing of it is left behind, even by a kill. Null: there can be none now.
    static FileStream? Spool() {
        string path = Path.Combine(Path.GetTempPath(), "feedback-" + Guid.NewGuid().ToString("N"));
        try {
            var spool = new FileStream(path, new FileStreamOptions {
                Mode = FileMode.CreateNew, Access = FileAccess.ReadWrite, BufferSize = 128 << 10,
                UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
            });
            File.Delete(path);
            return spool;
        } catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return null; }
    }
}

// ---- The list ---------------------------------------------------------------------------------------------------

/// <summary>Which part of the list is asked for, and how.</summary>
sealed record ListQuery(string Format, string? Reason, DateTimeOffset? Since, string After, int? Limit, string? SinceText) {
    public const string Json = "json", Csv = "csv", Ses = "ses",
        Reasons = "reason must be complaint, bounce, unsubscribe, soft-bounces or manual.",
        NoEnd = "By HTTP/1.0 a list that breaks off looks like a whole one; HTTP/1.1 is wanted (nginx: proxy_http_version 1.1).";
    const int MaxLimit = 100_000; // what one import job of SES takes
    static readonly string[] Times = ["yyyy-MM-dd", "yyyy-MM-dd'T'HH:mmK", "yyyy-MM-dd'T'HH:mm:ssK", "yyyy-MM-dd'T'HH:mm:ss.FFFFFFFK"];

    /// <summary>Null when something in it is wrong, which is told.</summary>
    public static ListQuery? Read(IQueryCollection query, out string wrong) {
        string? Text(string name) => query[name].ToString() is { Length: > 0 } text ? text : null;
        var (format, reason, since, limit) = (Text("format") ?? Json, Text("reason"), Time(Text("since")), Text("limit"));
        bool counts = int.TryParse(limit, NumberStyles.None, CultureInfo.InvariantCulture, out int count);
        wrong = Odd(query, "format", "reason", "since", "limit", "after") is { } odd ? odd
            : format is not (Json or Csv or Ses) ? "format must be json, csv or ses."
            : reason is not null && global::Reason.Strength(reason) < 0 ? Reasons
            : since is null && Text("since") is not null ? "since must be a date or a time, as 2026-11-24 and 2026-11-24T08:00:00Z are."
            : limit is not null && (!counts || count is < 1 or > MaxLimit) ? "limit must be 1 to 100000." : "";
        return wrong.Length > 0 ? null : new(format, reason, since, Text("after") ?? "", limit is null ? null : count, Text("since"));
    }

    /// <summary>The first parameter that is none of these, or is given twice; null when all may be right.</summary>
    public static string? Odd(IQueryCollection query, params string[] names) => query.Select(each =>
        !names.Contains(each.Key) ? $"'{each.Key[..Math.Min(100, each.Key.Length)]}' is no parameter here; these are: {string.Join(' ', names)}."
        : each.Value.Count > 1 ? $"{each.Key} is given twice." : null).FirstOrDefault(wrong => wrong is not null);

    // UTC where no offset says otherwise, and a plus may have come as a space.
    static DateTimeOffset? Time(string? text) => DateTimeOffset.TryParseExact(text?.Replace(' ', '+'), Times, CultureInfo.InvariantCulture,
        DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var time) && time.Year is >= 1970 and < 9999 ? time : null;

    public bool Has((string Address, Known Known) entry) => (Reason is null || entry.Known.Reason == Reason) && !(entry.Known.Since < Since)
        && (Format != Ses || (SesReason(entry.Known.Reason) is not null && FitsSes(entry.Address)));

    /// <summary>SES knows two reasons. Mail that failed time and again bounced; that somebody unsubscribed, or was suppressed by
    /// hand, cannot be said there.</summary>
    public static string? SesReason(string? reason) => reason switch {
        global::Reason.Bounce or global::Reason.SoftBounces => "BOUNCE",
        global::Reason.Complaint => "COMPLAINT",
        _ => null,
    };

    // Nothing says that SES reads quotes, and its addresses are ASCII.
    static bool FitsSes(string address) => Address.IsAddress(address) && Ascii.IsValid(address)
        && !address.AsSpan().ContainsAny(",\"' ") && !address.StartsWith("sha256:", Ordinal);

    /// <summary>The same for the page after this one.</summary>
    public string ToQuery(string after) => QueryString.Create(new KeyValuePair<string, string?>[] {
        new("format", Format), new("reason", Reason), new("since", SinceText), new("limit", $"{Limit}"), new("after", after),
    }.Where(pair => pair.Value is not null)).Value!;
}

/// <summary>Writes the list, entry by entry.</summary>
sealed partial class ListWriter(System.IO.Pipelines.PipeWriter body, string format) : IAsyncDisposable {
    static readonly SearchValues<char> Quoting = SearchValues.Create(",;\"\t\r\n");
    readonly Utf8JsonWriter _json = new(body, new() { Encoder = Receiver.Relaxed });
    bool _begun;

    void Begin() {
        if (_begun) return;
        _begun = true;
        if (format == ListQuery.Csv) Text("address,reason,since,because,note,event\n");
        if (format != ListQuery.Json) return;
        _json.WriteStartObject();
        _json.WriteStartArray("suppressed");
    }

    public void Write(string address, Known known) {
        Begin();
        string because = known.Because ?? "It was suppressed by hand.";
        if (format == ListQuery.Ses) Text($"{address},{ListQuery.SesReason(known.Reason)}\n");
        else if (format == ListQuery.Csv)
            Text($"{Cell(address)},{known.Reason},{known.Since.UtcDateTime:O},{Cell(because)},{Cell(known.Note)},{Cell(known.Event)}\n");
        else {
            _json.WriteStartObject();
            _json.WriteString("address", address);
            _json.WriteString("reason", known.Reason);
            _json.WriteString("since", known.Since.UtcDateTime);
            _json.WriteString("because", because);
            _json.WriteString("note", known.Note);
            _json.WriteString("event", known.Event);
            _json.WriteEndObject();
        }
    }

    public void End(string? next) {
        Begin();
        if (format != ListQuery.Json) return;
        _json.WriteEndArray();
        _json.WriteString("next", next);
        _json.WriteEndObject();
        _json.Flush();
    }

    public async ValueTask FlushAsync(CancellationToken cancellation) {
        _json.Flush();
        await body.FlushAsync(cancellation);
    }

    public ValueTask DisposeAsync() => _json.DisposeAsync();
    void Text(string text) => Encoding.UTF8.GetBytes(text, body);

    // A spreadsheet runs what begins like a formula, and some split at a semicolon or a tab:
    // https://owasp.org/www-community/attacks/CSV_Injection
    static string Cell(string? text) {
        text = Formula().Replace(text ?? "", "'$0");
        return !text.AsSpan().ContainsAny(Quoting) ? text : $"\"{text.Replace("\"", "\"\"", Ordinal)}\"";
    }

    [GeneratedRegex(@"(?<=\A|[;\t\r\n]""*)[=+\-@\t\r]")] private static partial Regex Formula();
}

// ---- Reading lists ----------------------------------------------------------------------------------------------

/// <summary>The body of a request, a quarter of a megabyte at a time.</summary>
sealed class Body(Stream stream) {
    readonly byte[] _bytes = new byte[256 << 10];
    int _from, _to;
    bool _ended;

    /// <summary>What was read and not yet taken.</summary>
    public ReadOnlyMemory<byte> Rest => _bytes.AsMemory(_from.._to);
    public bool Ended => _ended;
    public void Take(int count) => _from += count;

    /// <summary>Reads on; what Rest was before is good no longer. False when there is no more, or no more fits.</summary>
    public async ValueTask<bool> ReadAsync(CancellationToken cancellation) {
        if (_from > 0) Rest.CopyTo(_bytes);
        (_from, _to) = (0, _to - _from);
        if (_ended || _to == _bytes.Length) return false;
        int count = await stream.ReadAsync(_bytes.AsMemory(_to), cancellation);
        _to += count;
        _ended = count == 0;
        return true;
    }

    /// <summary>Past a byte order mark, to where it can be seen what the body begins with.</summary>
    public async ValueTask<byte> BeginAsync(CancellationToken cancellation) {
        while (Rest.Length < 3 && await ReadAsync(cancellation)) { }
        if (Rest.Span.StartsWith("\uFEFF"u8)) Take(3);
        do {
            int at = Rest.Span.IndexOfAnyExcept(" \t\r\n"u8);
            if (at >= 0) return Rest.Span[at];
        } while (await ReadAsync(cancellation));
        return 0;
    }
}

/// <summary>The lines of a body. With a delimiter they are records of CSV, which may go over several lines.</summary>
sealed class LineReader(Body body) {
    const int Longest = 64 << 10;
    bool _skips;
    long _read;

    /// <summary>The number of the line that was read last, or that a record began on.</summary>
    public long Number { get; private set; }
    /// <summary>What separates fields; null while lines are lines.</summary>
    public byte? Delimiter { get; set; }

    /// <summary>The next line with its end. A line that is too long is null. False: more must be read first.</summary>
    public bool TryRead(out ReadOnlyMemory<byte>? line) {
        line = null;
        var rest = body.Rest;
        int length = rest.Span.IndexOf((byte)'\n') + 1;
        if (!_skips && length > 0 && Delimiter is { } delimiter && rest.Span[..length].Contains((byte)'"')) {
            int record = EndOfRecord(rest.Span[..Math.Min(rest.Length, Longest)], delimiter);
            if (record == 0 && rest.Length < Longest && !body.Ended) return false;
            if (record > 0) length = record; // else a quote that nothing ends: one line, and no more
        }
        if (length == 0 && body.Ended) length = rest.Length;
        if (length == 0 && !(body.Ended && _skips)) {
            if (rest.Length <= Longest) return false;
            _skips = true;
            body.Take(rest.Length);
            return false;
        }
        if (!_skips && length <= Longest) line = rest[..length];
        _skips = false;
        Number = _read + 1;
        _read += Math.Max(1, rest.Span[..length].Count((byte)'\n'));
        body.Take(length);
        return true;
    }

    /// <summary>The record that was read last is none: only its first line was meant, and the others come again.</summary>
    public bool TakeBack(ReadOnlyMemory<byte> record) {
        int first = record.Span.IndexOf((byte)'\n') + 1;
        if (first == 0 || first == record.Length) return false;
        body.Take(first - record.Length);
        _read = Number;
        return true;
    }

    // Just after the line feed that ends a record, or 0.
    static int EndOfRecord(ReadOnlySpan<byte> text, byte delimiter) {
        bool quoted = false, begins = true;
        for (int i = 0; i < text.Length; i++) {
            if (quoted) {
                if (text[i] != '"') continue;
                if (i + 1 < text.Length && text[i + 1] == '"') i++; else quoted = false;
            } else if (text[i] == '\n') {
                return i + 1;
            } else {
                quoted = begins && text[i] == '"';
                begins = text[i] == delimiter;
            }
        }
        return 0;
    }
}

/// <summary>An address that a list names, and what it says of it, as it is spelled there. Or why there is none. Guess: the reason that all of
/// such a list seems to be for, where the entry has none and nobody has said one.</summary>
sealed record Row(long Line, string? Address, string? Reason = null, string? Note = null, DateTimeOffset? Since = null, string? Why = null,
    string? Guess = null);

/// <summary>What other providers call what they say of an address, in their CSV and in their JSON. Small letters, nothing
/// between.</summary>
static class Columns {
    static readonly string[] Addresses = ["address", "email", "emailaddress", "recipient", "addresses", "emails", "emailaddresses"],
        Reasons = ["reason", "suppressionreason"], Times = ["since", "created", "createdat", "lastupdatetime"],
        Others = ["note", "origin", "error", "code", "status", "ip", "tag", "tags"]; // each tells of one provider's list
    public static string Name(string text) =>
        string.Concat(text.Where(each => each is not (' ' or '_' or '-' or '\ufeff'))).ToLowerInvariant();
    public static bool IsKnown(string name) =>
        Addresses.Contains(name) || Reasons.Contains(name) || Times.Contains(name) || Others.Contains(name);
    public static bool IsAddress(string name) => Addresses.Contains(name);

    /// <summary>What an entry with these names and values says, for each address under a name for one.</summary>
    public static List<Row> Read(long line, IReadOnlyList<string> names, IReadOnlyList<string> values) {
        string? Of(params ReadOnlySpan<string> wanted) {
            for (int i = 0; i < names.Count && i < values.Count; i++)
                if (wanted.Contains(names[i]) && values[i].Length > 0) return values[i];
            return null;
        }
        string? said = Of(Reasons), reason = ReasonOf(said, Of("origin"));
        // Bounces of Mailgun: address, code, error, created_at; of SendGrid: status, reason, email, created. Invalid addresses of SendGrid:
        // reason, email, created. Its spam reports have an ip. Mailgun's unsubscribes have tags. As their APIs call them:
        // documentation.mailgun.com (Bounces), postmarkapp.com/developer/api/suppressions-api, docs.sendgrid.com (Bounces API).
        string? list = names.Contains("code") || names.Contains("error") || names.Contains("status")
            || (said is not null && names.Contains("created"))
            ? global::Reason.Bounce : names.Contains("ip") ? global::Reason.Complaint
            : names.Contains("tag") || names.Contains("tags") ? global::Reason.Unsubscribe : null;
        string? note = Of("note") ?? Of("error") ?? (reason is null ? said : null);
        return Each(new(line, null, reason, Unescaped(note), TimeOf(Of(Times)), Guess: list),
            values.Where((_, i) => i < names.Count && IsAddress(names[i])), named: true);
    }

    /// <summary>What an entry without names says: each cell that is nothing but an address is one, and a reason is where one stands.</summary>
    public static List<Row> Read(long line, IReadOnlyList<string> cells) {
        var rows = Each(new(line, null, cells.Select(cell => ReasonOf(cell)).FirstOrDefault(reason => reason is not null)), cells, named: false);
        // Jane <jane@example.com> is an address, but a note may look like that: reported by <ops@example.com>.
        return rows.Count > 1 && rows.Exists(row => row.Address?.Contains('<') == true)
            ? [new(line, null, Why: "more than one address, and some with a name")] : rows;
    }

    // Told is what stands where an address should, or looks as if it should be one.
    static List<Row> Each(Row said, IEnumerable<string> cells, bool named) {
        var rows = new List<Row>();
        bool wrong = false, any = false;
        foreach (string cell in cells.Select(each => each.Trim()).Where(each => each.Length > 0)) {
            var addresses = AddressesIn(Unescaped(cell)!);
            rows.AddRange(addresses.Select(address => said with { Address = address }));
            wrong |= addresses.Length == 0 && (named || (cell.Contains('@') && !cell.Contains(' ')));
            any = true;
        }
        if (rows.Count > 1) rows = [.. rows.DistinctBy(row => Address.Key(row.Address!))];
        if (wrong || (named && any && rows.Count == 0)) rows.Add(said with { Why = "no address" });
        return rows;
    }

    // What is nothing but an address, or nothing but addresses.
    static string[] AddressesIn(string cell) {
        if (IsOne(cell)) return [cell];
        string[] parts = cell.AsSpan().Count('@') < 2 ? [] : cell.Split(Between, StringSplitOptions.RemoveEmptyEntries);
        // In b@x.com <a@x.com> the first is a name.
        return Array.TrueForAll(parts, IsOne) && parts.DistinctBy(part => part.Contains('<')).Count() < 2 ? parts : [];
    }
    static readonly char[] Between = [' ', ',', ';', '\t'];
    static bool IsOne(string text) => Address.IsAddress(text) && Sendable.Quoted().Replace(text, "").AsSpan().Count('@') < 2;

    /// <summary>Ours, SES's, and the words of the others; null for what is none.</summary>
    public static string? ReasonOf(string? text, string? origin = null) => text is null or { Length: > 40 } ? null : Name(text) switch {
        "bounce" or "bounced" or "bounces" or "hardbounce" or "invalid" or "invalidemail" => global::Reason.Bounce,
        "complaint" or "complained" or "complaints" or "spamcomplaint" or "spamreport" or "spam" => global::Reason.Complaint,
        "unsubscribe" or "unsubscribed" or "unsubscribes" or "globalunsubscribe" => global::Reason.Unsubscribe,
        "manualsuppression" when Name(origin ?? "") == "recipient" => global::Reason.Unsubscribe, // Postmark's word for it
        "manual" or "manualsuppression" => global::Reason.Manual,
        "softbounces" => global::Reason.SoftBounces,
        _ => null,
    };

    // Seconds since 1970 (SendGrid, version 1 of the AWS CLI), ISO 8601, or as in mail (Mailgun).
    static DateTimeOffset? TimeOf(string? text) {
        if (!double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double seconds))
            return Iso8601.Read(text?.Replace(" UTC", " GMT", Ordinal));
        return seconds is > 0 and < 100_000_000_000 ? DateTimeOffset.UnixEpoch.AddSeconds(seconds) : null;
    }

    // As ListWriter's cells are escaped for spreadsheets.
    static string? Unescaped(string? text) => text is ['\'', '=' or '+' or '-' or '@', ..] ? text[1..] : text;
}

/// <summary>Lines and CSV, with or without a header.</summary>
sealed class CsvRows {
    readonly char[] _buffer = new char[256 << 10]; // more than a record has
    string[]? _header;
    char? _delimiter; // null before the first line

    /// <summary>Reads what is there, as far as it goes.</summary>
    public IEnumerable<Row> Read(LineReader lines) {
        while (lines.TryRead(out var line)) {
            if (line is not { } bytes) yield return new(lines.Number, null, Why: "longer than 64 KiB");
            else if (!Utf8.IsValid(bytes.Span)) yield return Bad(lines, bytes, "not UTF-8");
            else if (bytes.Span.ContainsAnyExcept(" \t\r\n"u8)) {
                string text = Encoding.UTF8.GetString(bytes.Span).TrimEnd('\r', '\n');
                if (_delimiter is null && IsHeader(lines, text)) continue;
                var rows = Read(lines.Number, text);
                bool others = NamesOthers(text, rows), isOne = others && IsOneEntry(text);
                if (!rows.Exists(row => row.Why is null) || (others && !isOne))
                    yield return Bad(lines, bytes, rows is [{ Why: { } why }, ..] ? why : "no address");
                else foreach (var row in rows) yield return row;
                if (isOne) yield return new(lines.Number, null, Why: "what it says in several lines names another address");
            }
        }
    }

    static Row Bad(LineReader lines, ReadOnlyMemory<byte> record, string why) {
        lines.TakeBack(record);
        return new(lines.Number, null, Why: why);
    }

    // As wide as the header, and no quote that was meant to open a field has ended one.
    bool IsOneEntry(string text) =>
        _header is not null && Fields(text)?.Length == _header.Length && !Regex.IsMatch(text, $"[{_delimiter}\n]\"(?:{_delimiter}|\\z)");

    // A quote that is never closed can end at the next one, entries later: then a line within has an address of its own. So may
    // what another mail server said, in as many lines as it liked.
    bool NamesOthers(string text, List<Row> rows) {
        if (!text.Contains('\n')) return false;
        var read = rows.Where(row => row.Address is not null).Select(row => Address.Key(row.Address!)).ToHashSet();
        return text.Split('\n').Skip(1).Any(line => Array.Exists(line.Split(_delimiter ?? ','), field =>
            Address.IsAddress(field) && !IsReply(field) && !read.Contains(Address.Key(field))));
    }
    // 550-Sent: RCPT TO:<ops@example.com>
    static bool IsReply(string field) => field.Contains(":<", Ordinal)
        || field.TrimStart() is [>= '2' and <= '5', >= '0' and <= '9', >= '0' and <= '9', ' ' or '-', ..];

    // The first line tells what separates fields, and whether it is a header.
    bool IsHeader(LineReader lines, string text) {
        lines.Delimiter = (byte)(_delimiter = ",;\t".MaxBy(each => text.AsSpan().Count(each))).Value;
        string[] names = [.. Fields(text)?.Select(Columns.Name) ?? []];
        if (names.Any(Columns.IsAddress)) _header = names;
        return _header is not null;
    }

    List<Row> Read(long line, string text) {
        var fields = Fields(text) ?? [];
        if (_header is not null) return Columns.Read(line, _header, fields);
        return Columns.Read(line, fields) is { Count: > 0 } rows ? rows : Columns.Read(line, [text]); // "Doe, Jane" <jane@example.com> is no CSV
    }

    // Null when it is no CSV.
    string[]? Fields(string text) {
        char delimiter = _delimiter ?? ',';
        if (!text.AsSpan().ContainsAny(delimiter, '"')) return [text];
        try {
            using var csv = CsvDataReader.Create(new StringReader(text), _buffer, new() { HasHeaders = false, Delimiter = delimiter });
            if (!csv.Read()) return null;
            string[] fields = new string[csv.RowFieldCount];
            for (int i = 0; i < fields.Length; i++) fields[i] = csv.GetString(i);
            return fields;
        } catch (FormatException) { return null; }
    }
}

/// <summary>JSON, however it is arranged: one page, an array of pages, pages one after another, a line each. Each object that names an
/// address is an entry, and so is each array within an array; where there is none, that is told. `aws sesv2 list-suppressed-destinations`
/// of both versions, and what the APIs of the others answer.</summary>
sealed class JsonRows {
    const int MostOthers = 100, MostHeld = 4 << 20; // characters of addresses, and 32 for each

    sealed class Node(bool isObject, long line, Node? parent) {
        public readonly bool IsObject = isObject;
        public readonly long Line = line;
        public readonly Node? Parent = parent;
        public readonly List<string> Names = [], Values = [];
        public string Name = "";
        public bool HasText, HasRows;
        public int Others, Held;
    }

    readonly Stack<Node> _open = [];
    JsonReaderState _state = Fresh;
    long _line = 1;
    bool _skips;

    static JsonReaderState Fresh => new(new() { AllowMultipleValues = true });

    /// <summary>Reads what is there, as far as it goes.</summary>
    /// <exception cref="JsonException">It cannot be read on.</exception>
    public void Read(Body body, List<Row> rows) {
        while (!_skips || SkipLine(body)) {
            var text = body.Rest.Span;
            var reader = new Utf8JsonReader(text, body.Ended, _state);
            int counted = 0;
            bool goesOn = false;
            try {
                for (; reader.Read(); counted = (int)reader.TokenStartIndex) {
                    _line += text[counted..(int)reader.TokenStartIndex].Count((byte)'\n');
                    Take(ref reader, rows);
                }
                _state = reader.CurrentState;
            } catch (JsonException) {
                int ended = text[counted..(int)reader.BytesConsumed].Count((byte)'\n');
                (counted, goesOn) = ((int)reader.BytesConsumed, true);
                if (_open.Count > 1) throw new JsonException("no JSON", null, _line + ended, null); // within a page, so the rest has no meaning
                // An object a line: the next is one, too. This is the next when the one before was cut.
                _skips = !(_open.TryPeek(out var cut) && ended > 0);
                rows.Add(new(_skips ? _line + ended : cut!.Line, null, Why: "no JSON"));
                (_state, _line) = (Fresh, _line + ended);
                _open.Clear();
            }
            _line += text[counted..(int)reader.BytesConsumed].Count((byte)'\n');
            body.Take((int)reader.BytesConsumed);
            if (!goesOn) break;
        }
    }

    bool SkipLine(Body body) {
        int length = body.Rest.Span.IndexOf((byte)'\n') + 1;
        body.Take(length == 0 ? body.Rest.Length : length);
        if (length == 0) return false;
        (_skips, _line) = (false, _line + 1);
        return true;
    }

    void Take(ref Utf8JsonReader reader, List<Row> rows) {
        _open.TryPeek(out var node);
        switch (reader.TokenType) {
            case JsonTokenType.StartObject or JsonTokenType.StartArray:
                if (node is { IsObject: true }) Keep(node, "", rows);
                _open.Push(new(reader.TokenType == JsonTokenType.StartObject, _line, node));
                break;
            case JsonTokenType.EndObject or JsonTokenType.EndArray:
                _open.Pop();
                End(node!, rows);
                break;
            case JsonTokenType.PropertyName: node!.Name = Columns.Name(Text(ref reader)); break;
            default:
                string text = reader.TokenType is JsonTokenType.String or JsonTokenType.Number ? Text(ref reader) : "";
                if (node is not null) node.HasText |= reader.TokenType != JsonTokenType.Null || (node.IsObject && Columns.IsAddress(node.Name));
                if (node is null or { IsObject: false, Parent: null }) { // --query '...[].EmailAddress'
                    rows.AddRange(OrTold(_line, Columns.Read(_line, ["address"], [text])));
                    if (node is not null) node.HasRows = true;
                } else if (node is { IsObject: false, Parent: { IsObject: true } owner }) {
                    if (Columns.IsAddress(owner.Name)) Keep(owner, text, rows);
                } else {
                    Keep(node, text, rows);
                }
                break;
        }
    }

    static void Keep(Node node, string value, List<Row> rows) {
        bool isAddress = !node.IsObject || Columns.IsAddress(node.Name);
        if (!isAddress && (!Columns.IsKnown(node.Name) || ++node.Others > MostOthers)) return;
        // What an object says after its addresses holds for them, too, so as many as there is room for wait for its end.
        if (isAddress && (node.Held += value.Length + 32) > MostHeld) Give(node, rows);
        node.Names.Add(node.Name);
        node.Values.Add(value);
    }

    // What else an object says holds for the addresses that follow, too.
    static void Give(Node node, List<Row> rows) {
        var read = node.IsObject ? Columns.Read(node.Line, node.Names, node.Values) : Columns.Read(node.Line, node.Values);
        rows.AddRange(read);
        node.HasRows |= read.Count > 0;
        for (int i = node.Names.Count - 1; i >= 0; i--)
            if (!node.IsObject || Columns.IsAddress(node.Names[i])) {
                node.Names.RemoveAt(i);
                node.Values.RemoveAt(i);
            }
        node.Held = 0;
    }

    static void End(Node node, List<Row> rows) {
        Give(node, rows);
        if (node.Parent is not { IsObject: true } && node is { HasText: true, HasRows: false }) {
            rows.AddRange(OrTold(node.Line, []));
            node.HasRows = true;
        }
        if (node.Parent is not { } parent) return;
        parent.HasText |= node.HasText;
        parent.HasRows |= node.HasRows;
    }

    static List<Row> OrTold(long line, List<Row> rows) => rows.Count > 0 ? rows : [new(line, null, Why: "no address")];

    static string Text(ref Utf8JsonReader reader) {
        if (reader.TokenType == JsonTokenType.Number) return Encoding.ASCII.GetString(reader.ValueSpan);
        try { return reader.GetString()!; } catch (InvalidOperationException) { return "\ufffd"; } // not UTF-8, or half an emoji
    }
}

/// <summary>Suppresses what a list names, a few hundred at a time, so that the journal always has room for messages.</summary>
sealed class Import(IFeedbackStore store, TimeProvider clock, string? reason) {
    const int AtOnce = 256, MostTold = 100, LongestNote = 1000;
    readonly List<Row> _rows = [], _told = [];
    long _added, _already, _skipped;

    public string SoFar => $"{_added} were added before; post it again, for what is there is not added twice.";

    /// <exception cref="JsonException">It cannot be read on.</exception>
    /// <exception cref="Unavailable">It cannot be kept now.</exception>
    public async Task ReadAsync(Body body, CancellationToken cancellation) {
        try {
            if (await body.BeginAsync(cancellation) is (byte)'{' or (byte)'[') {
                var json = new JsonRows();
                do await AddAsync(json, body); while (await body.ReadAsync(cancellation));
                if (!body.Ended) throw new JsonException("a text that has no end", null, null, null);
            } else {
                var (csv, lines) = (new CsvRows(), new LineReader(body));
                do foreach (var row in csv.Read(lines)) await AddAsync(row); while (await body.ReadAsync(cancellation));
            }
        } catch (JsonException) {
            await FlushAsync();
            throw;
        }
        await FlushAsync();
    }

    public FileContentHttpResult Answer() {
        var (body, json) = ApiJson.Write();
        json.WriteStartObject();
        json.WriteNumber("added", _added);
        json.WriteNumber("already", _already);
        json.WriteStartArray("skipped");
        foreach (var row in _told.OrderBy(row => row.Line)) {
            json.WriteStartObject();
            json.WriteNumber("line", row.Line);
            json.WriteString("why", row.Why);
            json.WriteEndObject();
        }
        json.WriteEndArray();
        json.WriteNumber("moreSkipped", _skipped - _told.Count);
        json.WriteEndObject();
        json.Flush();
        return TypedResults.Bytes(body.WrittenMemory, "application/json; charset=utf-8");
    }

    // What came before a slip is an entry all the same.
    async Task AddAsync(JsonRows json, Body body) {
        var rows = new List<Row>();
        try { json.Read(body, rows); } finally { foreach (var row in rows) await AddAsync(row); }
    }

    async ValueTask AddAsync(Row row) {
        if (row.Why is null) _rows.Add(row); else Skip(row);
        if (_rows.Count == AtOnce) await FlushAsync();
    }

    void Skip(Row row) {
        _skipped++;
        if (_told.Count < MostTold) _told.Add(row);
    }

    async Task FlushAsync() {
        var keys = _rows.ConvertAll(row => Address.Key(row.Address!));
        var found = await store.FindAsync(keys) ?? throw new Unavailable();
        var latest = new Dictionary<string, Known>(StringComparer.Ordinal); // for an address may come twice
        var commits = new List<(bool New, Task<Commit> Commit)>();
        for (int i = 0; i < keys.Count; i++) {
            var before = latest.GetValueOrDefault(keys[i], found[i]);
            if (EntryOf(_rows[i], keys[i], before) is not { } entry) continue;
            var after = Judgement.Of(entry.Suppress!, entry.At, before);
            if (after == before) _already++; else commits.Add((!before.Suppressed, store.CommitAsync(entry)));
            latest[keys[i]] = after;
        }
        _rows.Clear();
        bool all = true;
        foreach (var (isNew, commit) in commits)
            if (await commit != Commit.Kept) all = false; else if (isNew) _added++; else _already++;
        if (!all) throw new Unavailable();
    }

    // Null when it was lifted after the list says it began.
    Entry? EntryOf(Row row, string key, Known before) {
        var now = clock.GetUtcNow() is var clocked && clocked > before.LiftedAt
            ? clocked : before.LiftedAt.AddTicks(1); // the clock may go back
        var since = row.Since < now ? row.Since : null;
        if (since < before.LiftedAt) {
            Skip(row with { Why = $"lifted on {before.LiftedAt:yyyy-MM-dd}, after the date it has here" });
            return null;
        }
        return new(now, Suppress: new(key, row.Reason ?? reason ?? row.Guess ?? Reason.Manual, before.Note is null ? Cut(row.Note) : null, since));
    }

    static string? Cut(string? note) =>
        note is { Length: > LongestNote } ? note[..(char.IsHighSurrogate(note[LongestNote - 1]) ? LongestNote - 1 : LongestNote)] : note;
}

static partial class Sendable {
    /// <summary>Copies the lines that may get mail, and tells how many may not, and how many are no address.</summary>
    public static async Task<(long Suppressed, long Wrong)> CopyAsync(Body body, Stream spool,
        IFeedbackStore store, CancellationToken cancellation) {
        var (lines, batch, keys) = (new LineReader(body), new List<ReadOnlyMemory<byte>>(), new List<string>());
        long suppressed = 0, wrong = 0;
        await body.BeginAsync(cancellation);
        do {
            while (lines.TryRead(out var line)) {
                if (line is { } text && !text.Span.ContainsAnyExcept(" \t\r\n"u8)) continue;
                if (line is null || KeyOf(line.Value.Span) is not { } key) {
                    wrong++;
                    continue;
                }
                batch.Add(line.Value);
                keys.Add(key);
            }
            var known = await store.FindAsync(keys) ?? throw new Unavailable();
            suppressed += known.Count(each => each.Suppressed);
            Spool(() => { for (int i = 0; i < known.Length; i++) if (!known[i].Suppressed) spool.Write(batch[i].Span); });
            batch.Clear();
            keys.Clear();
        } while (await body.ReadAsync(cancellation));
        Spool(spool.Flush); // what is still in its buffer may find no room, either
        return (suppressed, wrong);
    }

    static void Spool(Action write) {
        try { write(); } catch (IOException) { throw new Unavailable(); } // no room
    }

    // Null when it is no address, or more than one: what is looked up must be all that the line names.
    static string? KeyOf(ReadOnlySpan<byte> line) {
        if (!Utf8.IsValid(line)) return null;
        string text = Encoding.UTF8.GetString(line.Trim(" \t\r\n"u8));
        return Address.IsAddress(text) && Quoted().Replace(text, "").AsSpan().Count('@') == 1 ? Address.Key(text) : null;
    }

    [GeneratedRegex("\"[^\"]*\"")] public static partial Regex Quoted();
}

partial interface IFeedbackStore {
    /// <summary>Every suppressed address after one, in ordinal order; not those of people who were forgotten.</summary>
    IAsyncEnumerable<(string Address, Known Known)> SuppressionsAsync(string after, CancellationToken cancellation);
    /// <summary>Changes whenever the suppressions do.</summary>
    Task<string> SuppressionsVersionAsync();
    /// <summary>Forgets a person (GDPR, article 17): events gone from everything on disk, a suppression kept as a keyed hash.</summary>
    Task<Commit> ForgetAsync(string address);
}

// ---- LiteDB: the list -------------------------------------------------------------------------------------------

sealed partial class LiteDbStore {
    const int FirstPart = 1001; // most pages end within it, and so cost no sorting of everything
    readonly string _start = Guid.NewGuid().ToString("N")[..12];
    long _changes;

    // After the change can be seen: whoever reads the new number sees the new list.
    partial void Changed(Known before, Known after) {
        if (before.Suppressed || after.Suppressed) Interlocked.Increment(ref _changes);
    }

    public Task<string> SuppressionsVersionAsync() => _loaded.Task.IsCompleted
        ? Task.FromResult($"{_start}-{Interlocked.Read(ref _changes)}") : throw new Unavailable();

    public IAsyncEnumerable<(string Address, Known Known)> SuppressionsAsync(string after, CancellationToken cancellation) =>
        _loaded.Task.IsCompleted ? Suppressed(after).ToAsyncEnumerable() : throw new Unavailable();

    IEnumerable<(string Address, Known Known)> Suppressed(string after) {
        var lowest = new PriorityQueue<string, string>(Comparer<string>.Create((a, b) => string.CompareOrdinal(b, a)));
        foreach (string address in SuppressedAfter(after))
            if (lowest.Count < FirstPart) lowest.Enqueue(address, address);
            else if (string.CompareOrdinal(address, lowest.Peek()) < 0) lowest.DequeueEnqueue(address, address);
        string[] part = [.. lowest.UnorderedItems.Select(item => item.Element)];
        for (; ; part = [.. SuppressedAfter(part[^1])]) {
            Array.Sort(part, string.CompareOrdinal);
            foreach (string address in part)
                if (_known[address] is { Suppressed: true } known) yield return (address, known);
            if (part.Length != FirstPart) yield break;
        }
    }

    IEnumerable<string> SuppressedAfter(string after) {
        foreach (var (address, suppressed) in _known.Addresses)
            if (suppressed && string.CompareOrdinal(address, after) > 0 && !address.StartsWith("forgotten:", Ordinal))
                yield return address;
    }
}

// ---- LiteDB: forgetting a person --------------------------------------------------------------------------------
// What must go lies in the journal's lines and in feedback.db. First the journal learns what stays, under a keyed hash; then every
// line before that is blanked, or rewritten without the person where it concerns others, too; then feedback.db is deleted, and the
// follower builds it anew. journal/forgetting names the address until all is done, so a crash anywhere is followed by another run.

sealed partial class LiteDbStore {
    readonly SemaphoreSlim _forgets = new(1);
    string ForgettingPath => Path.Combine(journal.Folder, "forgetting");

    /// <summary>Kept: nothing on disk names the address any more. Otherwise it goes on at the next try, or start.</summary>
    public async Task<Commit> ForgetAsync(string address) {
        if (!_loaded.Task.IsCompleted) throw new Unavailable();
        await _forgets.WaitAsync();
        try {
            if (Begun() is { } other && other != address && await ForgetOneAsync(other) is not Commit.Kept and var commit) return commit;
            return await ForgetOneAsync(address);
        } catch (Exception e) when (e is IOException or UnauthorizedAccessException) {
            log.NotForgotten(e.GetType().Name);
            return Commit.Unwritable;
        } finally { _forgets.Release(); }
    }

    partial void FinishForgetting() {
        if (Begun() is { } address) _ = Task.Run(async () => {
            await _loaded.Task;
            for (int seconds = 10; !_stop.IsSet && !await IsForgottenAsync(address); seconds = Math.Min(2 * seconds, 3600))
                await Task.Delay(TimeSpan.FromSeconds(seconds), clock);
        });
    }

    // Nobody waits for it, so whatever it meets is told here.
    async Task<bool> IsForgottenAsync(string address) {
        try { return Begun() != address || await ForgetAsync(address) == Commit.Kept; } catch (Exception e) {
            log.NotForgotten(e.GetType().Name);
            return false;
        }
    }

    string? Begun() => File.Exists(ForgettingPath) && File.ReadAllText(ForgettingPath) is { Length: > 0 } address ? address : null;

    async Task<Commit> ForgetOneAsync(string address) {
        if (_forgetKey is null) {
            byte[] key = RandomNumberGenerator.GetBytes(32);
            Disk.WriteWhole(ForgetKeyPath(journal.Folder), key);
            _forgetKey = key;
        }
        Disk.WriteWhole(ForgettingPath, Encoding.UTF8.GetBytes(address));
        string alias = Forgotten(_forgetKey, address);
        var (commit, end) = await CommitForgetAsync(address, alias);
        // One line more closes the segment, so that all which names the person lies in files that nobody writes to.
        if (commit == Commit.Kept) commit = await CommitAsync(new Entry(clock.GetUtcNow()));
        if (commit != Commit.Kept) return commit;
        var person = new Person(address);
        Erase(person, end);
        foreach (var (each, _) in _known.Addresses) if (each != address && each != alias) Rename(each, person);
        lock (journal.Gate) if (_known[alias] is not null) _known[address] = null;
        Interlocked.Increment(ref _changes);
        Volatile.Write(ref _held, Math.Max(_held, _file.Applied));
        _file.Discard();
        _wake.Set();
        foreach (string part in Directory.EnumerateFiles(journal.Folder, "*.part")) File.Delete(part);
        File.Delete(ForgettingPath);
        Disk.FlushFolder(journal.Folder);
        log.Forgot();
        return Commit.Kept;
    }

    // What stays known, and where the journal ends with it. The line is made once all before it is known, so nothing is lost between.
    async Task<(Commit, long End)> CommitForgetAsync(string address, string alias) {
        var (at, end, entry) = (clock.GetUtcNow(), 0L, (Entry?)null);
        Action<Entry> watch = kept => {
            if (!ReferenceEquals(kept, entry)) return;
            end = journal.End;
            if (entry.Forget!.Known is null) _known[address] = null; // what comes after begins anew
        };
        lock (journal.Gate) journal.OnKept = watch + journal.OnKept; // just before the store takes it up
        var commit = await journal.AppendAsync(() =>
            entry = new Entry(at, Forget: new(alias, Person.Reduced(_known[Alias(address)] ?? Known.Nothing))));
        lock (journal.Gate) journal.OnKept -= watch;
        return (commit, end);
    }

    // Only now and here are lines of the journal changed. A line keeps its length, for its place in the file is a position.
    void Erase(Person person, long end) {
        var changes = new List<(long At, byte[] Line)>();
        long segment = 0;
        foreach (var (line, next) in journal.ReadFrom(0)) {
            if (next >> 32 != segment) Rewrite(segment, changes);
            segment = next >> 32;
            if (!line.IsEmpty && person.Without(line.Span) is { } changed) changes.Add((next - line.Length - 1, changed));
            if (next >= end) break;
        }
        Rewrite(segment, changes);
    }

    void Rewrite(long segment, List<(long At, byte[] Line)> changes) {
        if (changes.Count == 0) return;
        string path = Journal.PathOf(journal.Folder, (int)segment), part = path + ".part";
        try {
            File.Copy(path, part, overwrite: true); // with its mode
            using (var file = Disk.Open(part, FileShare.None)) {
                foreach (var (at, line) in changes) RandomAccess.Write(file.SafeFileHandle, line, (uint)at);
                file.Flush(flushToDisk: true);
            }
            File.Move(part, path, overwrite: true);
        } catch {
            File.Delete(part); // half a segment would take the room that the journal needs
            throw;
        }
        Disk.FlushFolder(journal.Folder);
        changes.Clear();
    }

    // What is known of somebody else may quote the person: it goes into the new feedback.db from memory.
    void Rename(string address, Person person) {
        if (_known[address] is not { } named || !person.IsNamedIn(named)) return;
        lock (journal.Gate) if (_known[address] is { } known) _known[address] = person.Without(known);
    }
}

sealed partial class FeedbackFile {
    /// <summary>Deletes the file, and every one that was moved aside. The follower finds it closed, and builds it anew.</summary>
    public void Discard() {
        string folder = System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!;
        lock (_gate) {
            Abandon();
            foreach (string each in (string[])[path, _logPath, _mark]) File.Delete(each);
            foreach (string each in (string[])[path, _logPath])
                foreach (string aside in Directory.EnumerateFiles(folder, System.IO.Path.GetFileName(each) + ".*.aside"))
                    File.Delete(aside);
            _applied = 0;
        }
        Disk.FlushFolder(folder);
    }
}

partial class Disk {
    /// <summary>A file for its owner only, all of it or nothing.</summary>
    public static void WriteWhole(string path, ReadOnlySpan<byte> bytes) {
        using (var file = Open(path + ".part", FileShare.None)) {
            file.SetLength(0);
            file.Write(bytes);
            file.Flush(flushToDisk: true);
        }
        File.Move(path + ".part", path, overwrite: true);
        FlushFolder(Path.GetDirectoryName(Path.GetFullPath(path))!);
    }
}

/// <summary>Somebody who is forgotten, by the key of an address: where the person is named, and what is left without.</summary>
sealed partial class Person {
    const string Nobody = "*", Stays = "Its owner was forgotten on request; that it must get no mail is all that was kept.";
    readonly string _key, _needle;
    readonly string[] _spellings; // of the address, and as a bounce address carries it (jane=example.com)

    public Person(string key) {
        _key = key;
        int at = key.LastIndexOf('@');
        // What is no address is looked for as a whole alone: others have it in theirs (info), and members of SES's are called so (bounce).
        // The longest run that is spelled alike in every way but upper case: a line without it need not be read.
        string local = key[..Math.Max(at, 0)];
        _needle = new string([.. local.Select(each => char.IsAsciiLetterOrDigit(each) ? each : ' ')]).Split(' ').MaxBy(run => run.Length)!;
        string domain = key[(at + 1)..], unicode = domain;
        try { unicode = new IdnMapping().GetUnicode(domain); } catch (ArgumentException) { } // no such domain, then
        string[] whole = [.. new[] { domain, unicode }.Distinct().Select(each => key[..(at + 1)] + each)];
        _spellings = at < 0 ? [] : [.. whole, .. whole.Select(each => each[..at] + "=" + each[(at + 1)..])];
    }

    /// <summary>What stays known of an address whose owner is forgotten: nothing that tells of the person. Null when that is
    /// nothing.</summary>
    public static Known? Reduced(Known known) => known is { Suppressed: false, LiftedAt.Ticks: 0, PreferenceAt.Ticks: 0 } ? null
        : new(known.Reason, known.Since, known.Suppressed ? Stays : null, ByHand: known.ByHand, LiftedAt: known.LiftedAt,
            PreferenceAt: known.PreferenceAt, SoftBecause: known.SoftBecause is null ? null : Stays);

    public bool IsNamedIn(Known known) => IsNamedIn(known.Because) || IsNamedIn(known.Note) || IsNamedIn(known.SoftBecause);
    public Known Without(Known known) => known with {
        Because = IsNamedIn(known.Because) ? "It named somebody who was forgotten." : known.Because,
        SoftBecause = IsNamedIn(known.SoftBecause) ? "It named somebody who was forgotten." : known.SoftBecause,
        Note = IsNamedIn(known.Note) ? Without(known.Note!) : known.Note,
    };

    /// <summary>The line as it is without the person, of the same length: blank where it concerns nobody else. Null: as it was.</summary>
    public byte[]? Without(ReadOnlySpan<byte> line) {
        if (!MayBeIn(Encoding.UTF8.GetString(line))) return null;
        if (Entry.Read(line) is not { } entry) return IsNamedIn(Encoding.UTF8.GetString(line)) ? Blank(line) : null;
        if (entry.Suppress is { } manual)
            return manual.Address == _key ? Blank(line)
                : IsNamedIn(manual.Note) ? Fit(entry with { Suppress = manual with { Note = Without(manual.Note!) } }, line) : null;
        if (entry.Lift is { } lift) return lift.Address == _key ? Blank(line) : null;
        if (entry.Refused is { } refused) return IsNamedIn(refused.Body) ? Blank(line) : null; // it was not believed
        if (entry.Message is not { } message) return null;
        foreach (bool withHeaders in (bool[])[true, false]) {
            string? text = WithoutInMessage(message.Message, withHeaders);
            string? subject = IsNamedIn(message.Subject) ? Without(message.Subject!) : message.Subject;
            if (text is null && subject == message.Subject) return null;
            var rest = new Entry(entry.At, message with { Message = text ?? message.Message, Subject = subject });
            if (entry.Event.Feedback.Count > 0 && rest.Event.Feedback.Count == 0) return Blank(line);
            if (Fit(rest, line) is { } fitting) return fitting;
        }
        throw new IOException("a line of the journal cannot be made shorter");
    }

    static byte[] Blank(ReadOnlySpan<byte> line) {
        byte[] blank = new byte[line.Length];
        Array.Fill(blank, (byte)' ');
        return blank;
    }

    // With spaces before the last brace. Null: too long.
    static byte[]? Fit(Entry entry, ReadOnlySpan<byte> line) {
        byte[] rest = entry.ToLine(), fitting = Blank(line);
        if (rest.Length - 1 > line.Length) return null;
        rest.AsSpan(..^2).CopyTo(fitting);
        fitting[^1] = (byte)'}';
        return fitting;
    }

    bool MayBeIn(string text) =>
        text.Contains(_needle, OrdinalIgnoreCase) || text.Contains('%') || text.Contains("\\u", Ordinal) || !Ascii.IsValid(text);

    // What an SES event says without the person; null when the person is not in it.
    string? WithoutInMessage(string message, bool withHeaders) {
        try {
            using var document = JsonDocument.Parse(SesEvent.Whole(message));
            var (body, json) = ApiJson.Write();
            bool found = false;
            Write(json, document.RootElement, inArray: false, withHeaders, ref found);
            json.Flush();
            // Nothing may grow: what came in its own letters does not stay escaped, as the writer does to an emoji.
            return found ? Escapes().Replace(Encoding.UTF8.GetString(body.WrittenSpan), each =>
                each.Groups["letter"] is { Success: true, Value: var letter } ? ((char)Convert.ToInt32(letter, 16)).ToString() : each.Value) : null;
        } catch (JsonException) { return IsNamedIn(message) ? Without(message) : null; }
    }

    // In an array the person becomes null: how many recipients there were tells whether each of them is certain.
    void Write(Utf8JsonWriter json, JsonElement element, bool inArray, bool withHeaders, ref bool found) {
        switch (element.ValueKind) {
            case JsonValueKind.Object when inArray && element.Member("emailAddress") is { ValueKind: JsonValueKind.String } email
                && Is(email.GetString()!):
                found = true;
                json.WriteNullValue();
                break;
            case JsonValueKind.Object:
                json.WriteStartObject();
                foreach (var member in element.EnumerateObject()) {
                    if (IsNamedIn(member.Name)) found = true;
                    if (IsNamedIn(member.Name) || (!withHeaders && member.Name == "headers")) continue;
                    json.WritePropertyName(member.Name);
                    Write(json, member.Value, inArray: false, withHeaders, ref found);
                }
                json.WriteEndObject();
                break;
            case JsonValueKind.Array:
                json.WriteStartArray();
                foreach (var each in element.EnumerateArray()) Write(json, each, inArray: true, withHeaders, ref found);
                json.WriteEndArray();
                break;
            case JsonValueKind.String when element.GetString()! is var text && IsNamedIn(text):
                found = true;
                if (Without(text) is var rest && inArray && rest == Nobody) json.WriteNullValue(); else json.WriteStringValue(rest);
                break;
            default:
                json.WriteRawValue(element.GetRawText(), skipInputValidation: true); // as SES spelled it, so nothing grows
                break;
        }
    }

    [GeneratedRegex(@"\\[^u]|\\u(?<letter>(?!00[0-7])[0-9a-fA-F]{4})")] private static partial Regex Escapes();

    bool Is(string text) => Address.Key(text) == _key;
    // Then it is the person's or it is not, whatever it ends with; but a bounce address may carry another's. A list can look like its last.
    static bool IsOneAddress(string text) => text.AsSpan().Count('@') == 1 && Address.IsAddress(text);

    // The parts between commas that do not name the person; a star when that is nothing.
    string Without(string text) {
        string rest = string.Join(",", Parts(text).Where(part => !Is(part) && !IsNamedIn(part))).Trim();
        return rest.Length == 0 || IsNamedIn(rest) ? Nobody : rest;
    }

    static IEnumerable<string> Parts(string text) {
        bool quoted = false;
        int from = 0;
        for (int i = 0; i < text.Length; i++) {
            quoted ^= text[i] == '"';
            if (quoted || text[i] is not (',' or ';')) continue;
            yield return text[from..i];
            from = i + 1;
        }
        yield return text[from..];
    }

    bool IsNamedIn(string? text) {
        if (text is null || !MayBeIn(text)) return false;
        bool isOne = IsOneAddress(text);
        if (Is(text) || Names(text, isOne) || (text.Contains('%') && Names(Uri.UnescapeDataString(text), isOne))) return true;
        return _needle.Length == 0 && Parts(text).Any(Is); // of a hashed address only whole spellings can be known
    }

    bool Names(string text, bool isOneAddress) {
        text = Address.Nfc(text.ToLowerInvariant());
        foreach (string spelling in _spellings.Where(each => !isOneAddress || !each.Contains('@')))
            for (int at = -1; (at = text.IndexOf(spelling, at + 1, Ordinal)) >= 0;)
                if (Begins(text, at, spelling) && Ends(text, at + spelling.Length)) return true;
        return false;
    }

    // So that joe@example.com is not found in mary.joe@example.com, nor in joe@example.com.au.
    static bool Begins(string text, int at, string spelling) => at == 0
        || !(char.IsLetterOrDigit(text[at - 1]) || text[at - 1] is '.' or '_' || (text[at - 1] is '+' or '-' && spelling.Contains('@')));
    static bool Ends(string text, int at) => at == text.Length || !(char.IsLetterOrDigit(text[at]) || text[at] is '-' or '_'
        || (text[at] == '.' && at + 1 < text.Length && char.IsLetterOrDigit(text[at + 1])));
}

sealed partial class Log {
    [LoggerMessage(111, Information, "A person was forgotten; feedback.db is built anew")] public partial void Forgot();
    [LoggerMessage(112, Error, "A person cannot be forgotten now ({Why}): tried again at the next request or start")]
    public partial void NotForgotten(string why);
}
