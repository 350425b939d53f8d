// What a team asks: which events (GET /bounces, /complaints, /events), how many of what (GET /stats), what is wrong and how to mend
// it (GET /status), and what else can be asked (GET /openapi/v1.json).
//
// Days are answered from the roll-ups. Everything else reads events, newest first, on a thread of its own: acknowledgements never
// wait for a report, and what a report holds in memory does not grow with what it reads.

using F23.StringSimilarity;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;

static partial class Extras {
    static partial void AddReports(WebApplicationBuilder builder) {
        builder.Services.ConfigureHttpJsonOptions(json => json.SerializerOptions.TypeInfoResolverChain.Insert(0, ReportsJson.Default));
        builder.Services.AddSingleton<ReportThreads>().AddSingleton<Doctor>()
            .AddHostedService(services => services.GetRequiredService<Doctor>())
            .AddSingleton<Live>().AddHostedService(services => services.GetRequiredService<Live>())
            .AddOpenApi(openApi => openApi.AddDocumentTransformer(Contract.DescribeAsync));
    }

    static partial void MapReports(WebApplication app) {
        app.MapGet("/bounces", EventPages.BouncesAsync);
        app.MapGet("/complaints", EventPages.ComplaintsAsync);
        app.MapGet("/events", EventPages.EventsAsync);
        app.MapGet("/stats", Stats.ReportAsync);
        app.MapGet("/status", Doctor.ReportAsync);
        app.MapOpenApi("/openapi/v1.json").WithSummary("GET /openapi/v1.json: this document.");
        Page.MapTo(app);
    }
}

/// <summary>One thread for pages, and one for what reads a whole range. A store may read without ever waiting, and on the pool's
/// threads that would hold the acknowledgements up. Each takes one request after the other, as far as the store does not wait.</summary>
sealed class ReportThreads : IDisposable {
    readonly ReportThread _pages = new("pages"), _scans = new("scans");
    public Task<T> PageAsync<T>(Func<Task<T>> read, CancellationToken cancellation) => _pages.RunAsync(read, cancellation);
    public Task<T> ScanAsync<T>(Func<Task<T>> read, CancellationToken cancellation) => _scans.RunAsync(read, cancellation);
    public void Dispose() {
        _pages.Dispose();
        _scans.Dispose();
    }

    sealed class ReportThread : TaskScheduler, IDisposable {
        readonly BlockingCollection<Task> _tasks = [];
        public ReportThread(string name) => new Thread(() => {
            foreach (var task in _tasks.GetConsumingEnumerable()) TryExecuteTask(task);
        }) { Name = name, IsBackground = true }.Start();
        public Task<T> RunAsync<T>(Func<Task<T>> read, CancellationToken cancellation) =>
            Task.Factory.StartNew(read, cancellation, TaskCreationOptions.None, this).Unwrap();
        public void Dispose() => _tasks.CompleteAdding();
        protected override void QueueTask(Task task) => _tasks.Add(task);
        protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) => false;
        protected override IEnumerable<Task> GetScheduledTasks() => _tasks;
    }
}

/// <summary>The parameters of a request. Wrong is null, or names the first that cannot be right.</summary>
sealed class Parameters {
    static readonly string[] Formats = ["yyyy-MM-dd", "yyyy-MM-dd'T'HH:mmK", "yyyy-MM-dd'T'HH:mm:ssK", "yyyy-MM-dd'T'HH:mm:ss.FFFFFFFK"];
    public static readonly string[] Filters =
        ["since", "until", "type", "subtype", "domain", "subject", "source", "configurationSet", "tag"];
    readonly IQueryCollection _query;
    public string? Wrong { get; private set; }

    public Parameters(IQueryCollection query, IReadOnlyCollection<string> names) {
        _query = query;
        foreach (var (name, values) in query)
            if (!names.Contains(name)) Wrong ??= $"'{Cut(name)}' is no parameter here; these are: {string.Join(' ', names)}.";
            else if (values.Count > 1) Wrong ??= $"{name} is given twice.";
    }

    public string? Text(string name) => _query[name] is [{ Length: > 0 } text] ? text : null;
    public string OneOf(string name, string usual, params string[] others) {
        string text = Text(name) ?? usual;
        if (text != usual && !others.Contains(text)) Refuse(name, "one of " + string.Join(' ', [usual, .. others]));
        return text;
    }
    public int Limit(int usual) {
        if (Text("limit") is not { } text) return usual;
        if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int limit) && limit is >= 1 and <= 1000) return limit;
        Refuse("limit", "a number from 1 to 1000");
        return usual;
    }
    /// <summary>A date is its midnight. All is UTC where no offset says otherwise, and a plus may have come as a space.</summary>
    public DateTimeOffset? Time(string name) {
        if (Text(name) is not { } text) return null;
        if (DateTimeOffset.TryParseExact(text.Replace(' ', '+'), Formats, CultureInfo.InvariantCulture,
            DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var time)
            && time.Year is >= 1970 and < 9999) return time;
        Refuse(name, "a date or a time, as 2026-11-24 and 2026-11-24T08:00:00Z are");
        return null;
    }
    public EventQuery Query(string? kind = null) => new(kind ?? Kind(Text("kind")), Since: Time("since"), Until: Time("until"),
        Before: After(), Type: Text("type"), SubType: Text("subtype"), Domain: Domain(Text("domain")), Subject: Text("subject"),
        Source: Text("source"), ConfigurationSet: Text("configurationSet"), Tag: Tag());

    Guid? After() {
        if (Text("after") is not { } text) return null;
        if (Guid.TryParseExact(text, "N", out var key)) return key;
        Refuse("after", "the `next` of the page before");
        return null;
    }
    (string, string)? Tag() {
        if (Text("tag") is not { } text) return null;
        // Names have colons, too: ses:from-domain.
        if (text.LastIndexOf(':') is > 0 and var colon) return (text[..colon], text[(colon + 1)..]);
        Refuse("tag", "NAME:VALUE");
        return null;
    }
    // As the key of an address spells it.
    static string? Domain(string? text) => text is null ? null : Address.Key("a@" + text) is ['a', '@', .. var domain] ? domain : text;
    static string? Kind(string? text) => text is null ? null : Array.Find(SesKinds, kind => kind.Equals(text, OrdinalIgnoreCase)) ?? text;
    static readonly string[] SesKinds = [SesEvent.Bounce, SesEvent.Complaint, SesEvent.Delivery, "Send", "Reject", "Open", "Click",
        "Rendering Failure", "DeliveryDelay", SesEvent.Subscription];
    void Refuse(string name, string wanted) => Wrong ??= $"{name} must be {wanted}; '{Cut(Text(name)!)}' is not.";
    static string Cut(string text) => text.Length <= 100 ? text : text[..100] + "...";
}

// ---- Events -----------------------------------------------------------------------------------------------------

/// <summary>GET /bounces, /complaints and /events: a page of events, newest first.</summary>
static partial class EventPages {
    static readonly string[] Columns = ["at", "address", "kind", "type", "subtype", "status", "detail", "recipient", "mailId", "subject",
        "source", "configurationSet", "snsMessageId", "id", "possible", "tags"];

    /// <summary>GET /bounces: a page of bounces, newest first.</summary>
    public static Task<Results<FileContentHttpResult, ProblemHttpResult>> BouncesAsync(HttpContext http, IFeedbackStore store,
        ReportThreads threads) => PageAsync(http, store, threads, SesEvent.Bounce);
    /// <summary>GET /complaints: a page of complaints, newest first.</summary>
    public static Task<Results<FileContentHttpResult, ProblemHttpResult>> ComplaintsAsync(HttpContext http, IFeedbackStore store,
        ReportThreads threads) => PageAsync(http, store, threads, SesEvent.Complaint);
    /// <summary>GET /events: a page of events of every kind, newest first.</summary>
    public static Task<Results<FileContentHttpResult, ProblemHttpResult>> EventsAsync(HttpContext http, IFeedbackStore store,
        ReportThreads threads) => PageAsync(http, store, threads, null);

    static async Task<Results<FileContentHttpResult, ProblemHttpResult>> PageAsync(HttpContext http, IFeedbackStore store,
        ReportThreads threads, string? kind) {
        string[] names = [.. Parameters.Filters, "after", "limit", "format", .. kind is null ? ["kind"] : (string[])[]];
        var ask = new Parameters(http.Request.Query, names);
        var (query, limit, csv) = (ask.Query(kind), ask.Limit(100), ask.OneOf("format", "json", "csv") == "csv");
        if (ask.Wrong is not null) return Problem.Of(400, ask.Wrong);
        var events = store.EventsAsync(query, http.RequestAborted);
        Func<Task<(ReadOnlyMemory<byte>, string?)>> read = () => csv ? CsvAsync(events, limit) : JsonAsync(events, limit);
        // Where few may match, all of a range may have to be read for one page: the others do not wait for that.
        bool scans = query is not { Type: null, SubType: null, Domain: null, Subject: null, Source: null, ConfigurationSet: null, Tag: null }
            || query.Kind is not (null or SesEvent.Bounce or SesEvent.Complaint);
        var (body, next) = await (scans ? threads.ScanAsync(read, http.RequestAborted) : threads.PageAsync(read, http.RequestAborted));
        if (next is not null) http.Response.Headers.Link = $"<{http.Request.Path}{QueryString.Create([.. http.Request.Query
            .Where(each => each.Key != "after"), new("after", next)])}>; rel=\"next\"";
        return TypedResults.Bytes(body, csv ? "text/csv; charset=utf-8; header=present" : "application/json; charset=utf-8");
    }

    static async Task<(ReadOnlyMemory<byte> Body, string? Next)> JsonAsync(
        IAsyncEnumerable<(Guid Key, Feedback Feedback)> events, int limit) {
        var (body, json) = ApiJson.Write();
        string? next = null;
        json.WriteStartObject();
        json.WriteStartArray("events");
        await foreach (var (key, feedback) in events) {
            feedback.WriteTo(json);
            if (--limit > 0 && json.BytesCommitted + json.BytesPending < ApiJson.LongestPage) continue;
            next = key.ToString("N");
            break;
        }
        json.WriteEndArray();
        json.WriteString("next", next);
        json.WriteEndObject();
        json.Flush();
        return (body.WrittenMemory, next);
    }

    static async Task<(ReadOnlyMemory<byte> Body, string? Next)> CsvAsync(
        IAsyncEnumerable<(Guid Key, Feedback Feedback)> events, int limit) {
        var csv = new StringBuilder().AppendJoin(',', Columns).Append("\r\n");
        string? next = null;
        await foreach (var (key, feedback) in events) {
            var texts = feedback.Texts.ToDictionary(text => text.Name, text => text.Value);
            (texts["at"], texts["address"]) = (Stats.Time(feedback.At), feedback.Address);
            (texts["possible"], texts["tags"]) = (feedback.Possible ? "true" : null, feedback.Tags);
            csv.AppendJoin(',', Columns.Select(column => Cell(texts[column]))).Append("\r\n");
            if (--limit > 0 && csv.Length < ApiJson.LongestPage) continue;
            next = key.ToString("N");
            break;
        }
        return (Encoding.UTF8.GetBytes(csv.ToString()), next);
    }
    // RFC 4180. An apostrophe keeps a spreadsheet from running what a stranger wrote into a diagnostic or a subject, even one that splits at
    // a semicolon or a tab: https://owasp.org/www-community/attacks/CSV_Injection
    static string Cell(string? text) {
        if (text is null) return "";
        text = Formula().Replace(text, "'$0");
        return text.AsSpan().IndexOfAny(",\"\r\n") < 0 ? text : $"\"{text.Replace("\"", "\"\"", Ordinal)}\"";
    }
    [GeneratedRegex(@"(?<=\A|[;\t\r\n]""*)[=+\-@\t\r]|\A\n")] private static partial Regex Formula();
}

// ---- Statistics -------------------------------------------------------------------------------------------------

/// <summary>The answer of GET /stats. Since is inclusive, Until is not. Of what was scanned: how many events were read, and whether
/// every key was kept (else the rarest were dropped, and what is left may have counted too few).</summary>
sealed record StatsReport(string By, string Since, string Until, bool Scanned,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] long? Read,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] bool? Complete, IReadOnlyList<StatsRow> Rows);

/// <summary>What happened under one key (null: SES did not say). Bounces, complaints and rates are counted as <see cref="Rates"/> counts
/// them; what SES's own list stopped, the simulator's mail and the kinds that have no column are Other.</summary>
sealed class StatsRow(string? key, string? didYouMean = null) {
    public string? Key => key;
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public string? DidYouMean => didYouMean;
    public long Sends { get; private set; }
    public long Deliveries { get; private set; }
    public long Bounces { get; private set; }
    public long SoftBounces { get; private set; }
    public long Complaints { get; private set; }
    public long NotSpam { get; private set; }
    public long Other { get; private set; }
    public double? BounceRate => Rates.BounceRate;
    public double? ComplaintRate => Rates.ComplaintRate;
    Rates Rates => new(Sends, Deliveries, Bounces, Complaints);
    /// <summary>What decides which keys are worth keeping.</summary>
    [JsonIgnore] public (long, long) Weight => (Bounces + Complaints, Sends + Deliveries + SoftBounces + NotSpam + Other);

    public StatsRow Add(Count count) {
        var counted = Rates.Of([count]);
        if (counted != Nothing) {
            (Sends, Deliveries) = (Sends + counted.Sends, Deliveries + counted.Deliveries);
            (Bounces, Complaints) = (Bounces + counted.Bounces, Complaints + counted.Complaints);
        } else if (count is { ToSimulator: false, Kind: SesEvent.Bounce, Type: not "Permanent" }) SoftBounces += count.Number;
        else if (count is { ToSimulator: false, Kind: SesEvent.Complaint, Type: "not-spam" }) NotSpam += count.Number;
        else Other += count.Number;
        return this;
    }
    public StatsRow Add(Feedback feedback) => Add(new Count(feedback.At, feedback.Kind, feedback.Type ?? "", feedback.SubType ?? "",
        feedback.ToSimulator, 1));
    static readonly Rates Nothing = new(0, 0, 0, 0);
}

/// <summary>Rows by their key, the heaviest few thousand however many there are.</summary>
sealed class StatsTable {
    const int MostKeys = 10_000, LongestKey = 200;
    readonly Dictionary<string, StatsRow> _rows = new(StringComparer.Ordinal);
    public bool Complete { get; private set; } = true;

    public StatsRow this[string? key, string? didYouMean = null] {
        get {
            key ??= "";
            if (key.Length > LongestKey) key = key[..(char.IsHighSurrogate(key[LongestKey - 1]) ? LongestKey - 1 : LongestKey)];
            if (_rows.TryGetValue(key, out var row)) return row;
            if (_rows.Count == 2 * MostKeys) DropHalf();
            return _rows[key] = new(key.Length == 0 ? null : key, didYouMean);
        }
    }
    /// <summary>The most bounces and complaints first.</summary>
    public IEnumerable<StatsRow> Heaviest =>
        _rows.Values.OrderByDescending(row => row.Weight).ThenBy(row => row.Key, StringComparer.Ordinal);

    void DropHalf() {
        Complete = false;
        foreach (var row in Heaviest.Skip(MostKeys).ToList()) _rows.Remove(row.Key ?? "");
    }
}

/// <summary>GET /stats.</summary>
static class Stats {
    static readonly string[] By = ["type", "domain", "subject", "source", "configurationSet", "didYouMean", "prevented"];

    /// <summary>GET /stats: how many of what. By day from the roll-ups, by anything else from the events of the range.</summary>
    public static async Task<Results<Ok<StatsReport>, ProblemHttpResult>> ReportAsync(HttpContext http, IFeedbackStore store,
        ReportThreads threads, TimeProvider clock) {
        string by = http.Request.Query["by"] is [{ Length: > 0 } asked] ? asked : "day";
        string[] filters = by is "day" ? ["since", "until", "kind", "type", "subtype"]
            : by is "didYouMean" or "prevented" ? ["since", "until"] : [.. Parameters.Filters, "kind"];
        var ask = new Parameters(http.Request.Query, ["by", .. filters, "limit"]);
        if (!by.StartsWith("tag:", Ordinal) || by.Length == 4) by = ask.OneOf("by", "day", [.. By, "tag:NAME"]);
        var (query, limit) = (ask.Query(), ask.Limit(by == "day" ? 1000 : 100));
        var until = query.Until ?? (query.Since is { } from && from >= Tomorrow(clock) ? from.AddDays(30) : Tomorrow(clock));
        query = query with { Until = until, Since = query.Since ?? until.AddDays(-30) };
        if (ask.Wrong is null && query.Since >= until) return Problem.Of(400, "since must be before until, which is not included.");
        if (ask.Wrong is not null || by == "tag:NAME") return Problem.Of(400, ask.Wrong ?? "by=tag:NAME wants the name of a tag of yours.");
        return TypedResults.Ok(by == "day" ? await ByDayAsync(store, query, limit) : await threads.ScanAsync(() => by switch {
            "didYouMean" => DidYouMean.ReportAsync(store, query, limit, http.RequestAborted),
            "prevented" => Prevented.ReportAsync(store, query, limit, http.RequestAborted),
            _ => ScanAsync(store, by, query, limit, http.RequestAborted),
        }, http.RequestAborted));
    }
    /// <summary>A report over a range that was read event by event.</summary>
    public static StatsReport Scanned(string by, EventQuery query, long read, bool complete, IEnumerable<StatsRow> rows) =>
        new(by, DayOrTime(query.Since!.Value), DayOrTime(query.Until!.Value), true, read, complete, [.. rows]);
    public static string Day(DateTimeOffset at) => at.UtcDateTime.ToString(Count.Day, CultureInfo.InvariantCulture);
    public static string Time(DateTimeOffset at) =>
        at.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.FFFFFFF'Z'", CultureInfo.InvariantCulture);
    static string DayOrTime(DateTimeOffset at) => at.TimeOfDay == default ? Day(at) : Time(at);
    static DateTimeOffset Tomorrow(TimeProvider clock) => new(clock.GetUtcNow().UtcDateTime.Date.AddDays(1), TimeSpan.Zero);

    // From the roll-ups, which know whole days: the last `limit` of the range, those without an event too.
    static async Task<StatsReport> ByDayAsync(IFeedbackStore store, EventQuery query, int limit) {
        DateTime until = query.Until!.Value.UtcDateTime.AddDays(1).AddTicks(-1).Date, since = query.Since!.Value.UtcDateTime.Date;
        if (since < until.AddDays(-limit)) since = until.AddDays(-limit);
        var counts = await store.CountsAsync(hourly: false, new(since, TimeSpan.Zero));
        var rows = Enumerable.Range(0, (until - since).Days).Select(day => since.AddDays(day))
            .ToDictionary(day => day, day => new StatsRow(Day(day)));
        foreach (var count in counts)
            if (rows.TryGetValue(count.At.UtcDateTime.Date, out var row) && Is(query.Kind, count.Kind) && Is(query.Type, count.Type)
                && Is(query.SubType, count.SubType)) row.Add(count);
        return new("day", Day(since), Day(until), false, null, null, [.. rows.Values]);
    }
    static bool Is(string? wanted, string value) => wanted is null || wanted == value;

    static async Task<StatsReport> ScanAsync(IFeedbackStore store, string by, EventQuery query, int limit, CancellationToken cancellation) {
        var table = new StatsTable();
        long read = 0;
        await foreach (var (_, feedback) in store.EventsAsync(query, cancellation)) {
            read++;
            foreach (string? key in Keys(by, feedback)) table[key].Add(feedback);
        }
        return Scanned(by, query, read, table.Complete, table.Heaviest.Take(limit));
    }

    static IEnumerable<string?> Keys(string by, Feedback feedback) => by switch {
        "type" => [string.Join('/', ((string?[])[feedback.Type, feedback.SubType]).OfType<string>())],
        "domain" => [DomainOf(feedback.Address)],
        "subject" => [feedback.Subject],
        "source" => [feedback.Source],
        "configurationSet" => [feedback.ConfigurationSet],
        _ => feedback.TagValues(by[4..]).Distinct().DefaultIfEmpty(), // tag:NAME; a mail with two values counts under both
    };
    public static string? DomainOf(string address) => address.LastIndexOf('@') is >= 0 and var at ? address[(at + 1)..] : null;
}

/// <summary>GET /stats?by=didYouMean: addresses that bounced for good as unknown, at a domain that looks like a slip for one where many
/// have their mail, and that has had no delivery in the range.</summary>
sealed class DidYouMean {
    const int MostDomains = 10_000;
    // Where mail is read: by name, so that none of them is taken for a slip for another.
    static readonly string[] Common = [.. """
        gmail.com googlemail.com yahoo.com yahoo.co.uk yahoo.de yahoo.fr yahoo.it yahoo.es yahoo.ca yahoo.co.in yahoo.co.jp yahoo.com.br
        yahoo.com.au ymail.com rocketmail.com hotmail.com hotmail.co.uk hotmail.de hotmail.fr hotmail.it hotmail.es hotmail.nl
        outlook.com outlook.de outlook.fr outlook.es live.com live.co.uk live.de live.fr live.nl live.it msn.com icloud.com me.com
        mac.com aol.com aol.de mail.com email.com gmx.de gmx.net gmx.at gmx.ch gmx.com gmx.fr web.de t-online.de freenet.de arcor.de
        mail.de posteo.de mailbox.org proton.me protonmail.com tutanota.com fastmail.com zoho.com hey.com yandex.ru yandex.com mail.ru
        bk.ru inbox.ru list.ru rambler.ru ukr.net comcast.net verizon.net att.net sbcglobal.net bellsouth.net cox.net charter.net
        earthlink.net btinternet.com virginmedia.com sky.com talktalk.net ntlworld.com orange.fr wanadoo.fr free.fr laposte.net sfr.fr
        neuf.fr libero.it virgilio.it tiscali.it alice.it tin.it telenet.be skynet.be ziggo.nl kpnmail.nl planet.nl home.nl hetnet.nl
        xs4all.nl bluewin.ch wp.pl o2.pl interia.pl onet.pl seznam.cz centrum.cz abv.bg telefonica.net sapo.pt uol.com.br bol.com.br
        terra.com.br rediffmail.com qq.com 163.com 126.com sina.com naver.com daum.net hanmail.net bigpond.com optusnet.com.au shaw.ca
        rogers.com sympatico.ca telus.net xtra.co.nz
        """.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)];
    readonly OptimalStringAlignment _distance = new();
    readonly Dictionary<string, string?> _suggestions = new(StringComparer.Ordinal);
    readonly HashSet<string> _delivered = new(StringComparer.Ordinal);
    readonly StatsTable _table = new();

    public static async Task<StatsReport> ReportAsync(IFeedbackStore store, EventQuery query, int limit, CancellationToken cancellation) {
        var (slips, read) = (new DidYouMean(), 0L);
        await foreach (var (_, feedback) in store.EventsAsync(query, cancellation)) {
            read++;
            slips.Add(feedback);
        }
        var rows = slips._table.Heaviest.Where(row => Stats.DomainOf(row.Key!) is { } domain && !slips._delivered.Contains(domain));
        bool complete = slips._table.Complete && slips._delivered.Count < MostDomains;
        return Stats.Scanned("didYouMean", query, read, complete, rows.Take(limit));
    }

    void Add(Feedback feedback) {
        if (feedback.Kind is not (SesEvent.Bounce or SesEvent.Delivery)) return;
        if (Stats.DomainOf(feedback.Address) is not { } domain || Of(domain) is not { } meant) return;
        if (feedback.Kind == SesEvent.Delivery) {
            if (_delivered.Count < MostDomains) _delivered.Add(domain);
        } else if (feedback is { Type: "Permanent", SubType: "General" or "NoEmail" })
            _table[feedback.Address, feedback.Address[..^domain.Length] + meant].Add(feedback);
    }
    // A transposition is one slip. In a name as short as gmx.de two would turn it into anything.
    string? Of(string domain) {
        if (_suggestions.TryGetValue(domain, out string? known)) return known;
        if (_suggestions.Count == MostDomains) _suggestions.Clear();
        return _suggestions[domain] = Common.Where(common => Math.Abs(common.Length - domain.Length) <= 2)
            .Select(common => (Domain: common, Slips: _distance.Distance(common, domain)))
            .Where(near => near.Slips <= (near.Domain.Length < 9 ? 1 : 2)).OrderBy(near => near.Slips)
            .Select(near => near.Slips > 0 ? near.Domain : null).FirstOrDefault();
    }
}

/// <summary>GET /stats?by=prevented: what came of mail that was sent after its address had been suppressed, so that a check before sending
/// would have spared it. By what is suppressed now: what was lifted since is not counted, so it is never too many.</summary>
static class Prevented {
    const int Batch = 256;

    public static async Task<StatsReport> ReportAsync(IFeedbackStore store, EventQuery query, int limit, CancellationToken cancellation) {
        var (days, read, waiting) = (new StatsTable(), 0L, new List<Feedback>(Batch));
        foreach (string kind in (string[])[SesEvent.Bounce, SesEvent.Complaint])
            await foreach (var (_, feedback) in store.EventsAsync(query with { Kind = kind }, cancellation)) {
                read++;
                waiting.Add(feedback);
                if (waiting.Count == Batch) await JudgeAsync(store, waiting, days);
            }
        await JudgeAsync(store, waiting, days);
        var newestFirst = days.Heaviest.OrderByDescending(row => row.Key, StringComparer.Ordinal);
        return Stats.Scanned("prevented", query, read, days.Complete, newestFirst.Take(limit));
    }

    static async Task JudgeAsync(IFeedbackStore store, List<Feedback> waiting, StatsTable days) {
        var known = await store.FindAsync([.. waiting.Select(feedback => feedback.Address)]) ?? throw new Unavailable();
        for (int i = 0; i < waiting.Count; i++)
            if (known[i].Suppressed && known[i].Since < waiting[i].At && SentAt(waiting[i]) > known[i].Since)
                days[Stats.Day(waiting[i].At)].Add(waiting[i]);
        waiting.Clear();
    }

    static DateTimeOffset? SentAt(Feedback feedback) {
        if (feedback.Mail is null) return null;
        using var mail = JsonDocument.Parse(feedback.Mail);
        return Iso8601.Read(mail.RootElement.Text("timestamp"));
    }
}

// ---- Status -----------------------------------------------------------------------------------------------------

/// <summary>A message that was refused: never from whom, nor what it said.</summary>
sealed record RefusedMessage(DateTime At, int Status, string Why, string? TopicArn);
/// <summary>A topic that is allowed, and what was seen of it: all null when nothing was.</summary>
sealed record TopicReport(string TopicArn, DateTime? ConfirmedAt, DateTime? UnsubscribedAt, DateTime? ValidatedAt, DateTime? LastAt,
    string? SignatureVersion, DateTime? DoubledAt);
/// <summary>The rates of a window, and where they stand against SES's lines.</summary>
sealed record RatesReport(string Window, long Mails, long Sends, long Deliveries, long Bounces, long Complaints, double? BounceRate,
    double? ComplaintRate, string BounceVerdict, string ComplaintVerdict);
/// <summary>Where SES advises, reviews and pauses.</summary>
sealed record RateLines(IReadOnlyList<double> Bounce, IReadOnlyList<double> Complaint);
/// <summary>How the store is, without its topics and findings.</summary>
sealed record StoreReport(string Name, long JournalBytes, long BehindBytes, double BehindSeconds, long Suppressed, long Unread);
/// <summary>The disk that the journal is on.</summary>
sealed record DiskReport(long FreeBytes, long TotalBytes);
/// <summary>The answer of GET /status. Ok: no finding is more than a hint. Store is null while it cannot be read.</summary>
sealed record StatusReport(bool Ok, IReadOnlyList<Finding> Findings, IReadOnlyList<TopicReport> Topics, IReadOnlyList<RatesReport> Rates,
    RateLines Lines, IReadOnlyList<RefusedMessage> Refusals, StoreReport? Store, DiskReport? Disk, DateTime StartedAt,
    IReadOnlyList<Errand> Errands);

/// <summary>GET /status: listens to the verdicts, looks at the store, and says what is wrong.</summary>
sealed class Doctor(IFeedbackStore store, Intake intake, IOptions<ReceiverOptions> options, IConfiguration configuration,
    TimeProvider clock, Disk disk, IEnumerable<Func<Finding?>> others, IEnumerable<Func<Errand>> errands,
    IHostEnvironment environment) : IHostedService {
    const string Error = "error", Warning = "warning", Hint = "hint", Journal = "journalctl -u feedback -n 50";
    const int MostRefusals = 50, MostDelays = 20, SilentDays = 7, CertificateDays = 14;
    readonly ReceiverOptions _options = options.Value;
    readonly DateTime _startedAt = clock.GetUtcNow().UtcDateTime;
    readonly Lock _gate = new();
    readonly Queue<(RefusedMessage Message, Verdict Verdict)> _refusals = new();
    readonly Queue<TimeSpan> _delays = new(); // from SNS's Timestamp to our clock, of genuine messages

    public Task StartAsync(CancellationToken cancellationToken) {
        intake.Answered += Hear;
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) {
        intake.Answered -= Hear;
        return Task.CompletedTask;
    }

    void Hear(Verdict verdict, Envelope? envelope) {
        var now = clock.GetUtcNow();
        lock (_gate) {
            if (verdict.Status != 200) {
                if (_refusals.Count == MostRefusals) _refusals.Dequeue();
                _refusals.Enqueue((new(now.UtcDateTime, verdict.Status, verdict.Why, NameOf(envelope?.TopicArn)), verdict));
            } else if (Iso8601.Read(envelope?.Timestamp) is { } sent) {
                if (_delays.Count == MostDelays) _delays.Dequeue();
                _delays.Enqueue(now - sent);
            }
        }
    }
    // What is none of ours is a stranger's text.
    string? NameOf(string? topicArn) => topicArn is null || _options.TopicArns.Contains(topicArn) ? topicArn
        : new([.. topicArn.Take(100).Where(letter => letter is > ' ' and < '\x7f')]);

    /// <summary>GET /status: what is wrong, and the command that mends it. 503 with what is known all the same when the store cannot be
    /// read.</summary>
    public static async Task<Results<Ok<StatusReport>, JsonHttpResult<StatusReport>>> ReportAsync(Doctor doctor) {
        var report = await doctor.ReportAsync();
        return report.Store is not null ? TypedResults.Ok(report)
            : TypedResults.Json(report, ReportsJson.Default.StatusReport, statusCode: 503);
    }

    async Task<StatusReport> ReportAsync() {
        StoreState? state = null;
        RatesReport[] rates = [];
        try { rates = await RatesAsync(); } catch (Unavailable) { } // first, for it waits until what was kept can be read back
        try { state = await store.StateAsync(); } catch (Unavailable) { }
        var room = Room();
        RefusedMessage[] refusals;
        TimeSpan[] delays;
        lock (_gate) (refusals, delays) = ([.. _refusals.Reverse().Select(each => each.Message)], [.. _delays]);
        var seen = state?.Topics.ToDictionary(topic => topic.TopicArn);
        var raw = seen?.GetValueOrDefault(configuration["Sqs:QueueUrl"] ?? "")?.LastAt?.UtcDateTime; // of which topic, nobody has signed
        TopicReport[] topics = [.. _options.TopicArns.Distinct().Select(arn => Of(arn, seen?.GetValueOrDefault(arn)))];
        List<Finding> findings = [.. await StoreFindingsAsync(state, room), .. state is null || rates.Length == 0 ? [] : topics.SelectMany(topic => TopicFindings(topic, raw)),
            .. RateFindings(rates), .. RefusalFindings(), .. ClockFindings(delays), .. CertificateFindings(),
            .. others.Select(find => find()).OfType<Finding>()]; // what other extras see
        StoreReport? stored = state is null ? null : new(state.Name, state.JournalBytes, state.BehindBytes,
            Math.Round(state.Behind.TotalSeconds, 3), state.Suppressed, state.Unread);
        return new(findings.All(finding => finding.Severity == Hint), [.. findings.OrderBy(finding => finding.Severity switch {
            Error => 0, Warning => 1, _ => 2,
        })], topics, rates, new(Rates.BounceLines, Rates.ComplaintLines), refusals, stored, room, _startedAt,
            [.. errands.Select(errand => errand())]);
    }

    static TopicReport Of(string arn, TopicState? seen) => new(arn, seen?.ConfirmedAt?.UtcDateTime, seen?.UnsubscribedAt?.UtcDateTime,
        seen?.ValidatedAt?.UtcDateTime, seen?.LastAt?.UtcDateTime, seen?.SignatureVersion, seen?.DoubledAt?.UtcDateTime);

    async Task<RatesReport[]> RatesAsync() {
        var now = clock.GetUtcNow();
        var counts = await store.CountsAsync(hourly: true, now.AddDays(-7));
        return [Window("24h", now.AddDays(-1)), Window("7d", now.AddDays(-7))];

        RatesReport Window(string name, DateTimeOffset from) {
            var rates = Rates.Of(counts.Where(count => count.At >= from.AddHours(-1) && count.At <= now)); // the hour that it begins in
            return new(name, rates.Mails, rates.Sends, rates.Deliveries, rates.Bounces, rates.Complaints, rates.BounceRate, rates.ComplaintRate,
                Judge(rates.BounceRate, rates.Mails, Rates.BounceLines),
                Judge(rates.ComplaintRate, rates.Deliveries, Rates.ComplaintLines));
        }
    }

    static string Judge(double? rate, long mails, double[] lines) => rate is null ? "unknown" : mails < Rates.Enough ? "too-few"
        : ((string[])["ok", "advice", "review", "pause"])[lines.Count(line => rate >= line)];

    async Task<List<Finding>> StoreFindingsAsync(StoreState? state, DiskReport? room) {
        List<Finding> findings = [];
        string folder = _options.JournalDirectory;
        if (!await store.IsWritableAsync())
            findings.Add(new("journal-unwritable", Error, "The journal cannot be written: SNS is told 503, and tries again.",
                "df -h " + folder));
        if (state is null) findings.Add(new("store-unavailable", Error,
            "What is stored cannot be read now: it is being built anew, or the database is away.", Journal));
        if (state is not null && await store.FindAsync("") is null) findings.Add(new("lookups-unavailable", Error,
            "No look-up can be answered yet: what is stored is still being read, or cannot be.", Journal));
        if (state?.Behind > TimeSpan.FromMinutes(1)) findings.Add(new("follower-behind", Warning,
            $"{state.BehindBytes} bytes of the journal wait to be copied, for {state.Behind.TotalMinutes:0} minutes: history and "
            + "statistics are not complete yet.", Journal));
        findings.AddRange((state?.Findings ?? []).Select(says => new Finding("store", Warning, says, Journal)));
        if (room is not null && (room.FreeBytes < 1L << 30 || room.FreeBytes < room.TotalBytes / 20))
            findings.Add(new("disk-low", room.FreeBytes < 256 << 20 ? Error : Warning,
                $"{room.FreeBytes >> 20} MiB are left on the disk of the journal.", $"df -h {folder}; du -sh {folder}"));
        return findings;
    }

    DiskReport? Room() {
        try {
            string folder = Path.GetFullPath(_options.JournalDirectory);
            return new(disk.Free(folder), disk.Size(folder));
        } catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException) { return null; }
    }

    IEnumerable<Finding> TopicFindings(TopicReport topic, DateTime? raw) {
        var (arn, now) = (topic.TopicArn, clock.GetUtcNow().UtcDateTime);
        string subscribe = $"aws sns subscribe --topic-arn {arn} --protocol https --notification-endpoint https://<this host>/sns";
        const string Test = "aws sesv2 send-email --configuration-set-name <set> --from-email-address <you> --destination ToAddresses=bounce@simulator.amazonses.com "
            + "--content 'Simple={Subject={Data=test},Body={Text={Data=test}}}'";
        // SNS tries for an hour at most: what comes later came by another subscription, as a queue's is.
        if (topic.UnsubscribedAt is { } left && !(topic.ConfirmedAt > left) && !(topic.LastAt > left.AddHours(1)))
            yield return new("topic-unsubscribed", Error, $"{arn} was unsubscribed at {left:u}, and nothing comes since.", subscribe);
        else if ((topic.LastAt > raw ? topic.LastAt : raw ?? topic.LastAt) is not { } last)
            yield return new("topic-unconfirmed", Error, $"Nothing has come from {arn} yet: it was never subscribed, or cannot reach this "
                + "receiver.", string.IsNullOrEmpty(configuration["Sqs:QueueUrl"]) ? subscribe : Test);
        else if (now - last > TimeSpan.FromDays(SilentDays))
            yield return new("topic-silent", Warning, $"Nothing came from {arn} for {(now - last).Days} days; a test mail tells.", Test);
        if (topic.SignatureVersion == "1") yield return new("signature-version-1", Hint, $"{arn} signs with SHA-1.", SignWith2(arn));
        if (now - topic.DoubledAt < TimeSpan.FromDays(SilentDays)) yield return new("formats-doubled", Warning,
            $"Both SES formats are on: one event came to {arn} in two messages. It counts once, but is paid for twice.",
            "for type in Bounce Complaint Delivery; do aws ses set-identity-notification-topic "
            + "--identity <your domain> --notification-type $type; done");
    }
    static string SignWith2(string? arn) =>
        $"aws sns set-topic-attributes --topic-arn {arn} --attribute-name SignatureVersion --attribute-value 2";

    IEnumerable<Finding> RateFindings(RatesReport[] rates) {
        if (rates is not [var day, var week]) yield break;
        // The whole destination: what an update does not name is gone.
        if (week.Deliveries == 0) yield return new("rates-unknown", Hint, week.Sends > 0
            ? "No Delivery came in 7 days: the rate of complaints cannot be told." : "No Send or Delivery came in 7 days: no rates can be told.",
            "event_types in infra.tf; or aws sesv2 update-configuration-set-event-destination --configuration-set-name <set> "
            + "--event-destination-name <destination> --event-destination 'Enabled=true,MatchingEventTypes=SEND,DELIVERY,BOUNCE,COMPLAINT,"
            + $"REJECT,DELIVERY_DELAY,RENDERING_FAILURE,SUBSCRIPTION,SnsDestination={{TopicArn={_options.TopicArns[0]}}}'");
        foreach (var window in (RatesReport[])[day, week]) {
            if (Worse(window.BounceVerdict) is { } bad) yield return new("bounce-rate", bad, Percent(window.BounceRate)
                + $" of {window.Mails} mails in {window.Window} bounced for good: over SES's line ({window.BounceVerdict}).",
                "curl 'localhost:8081/stats?by=source&kind=Bounce'");
            if (Worse(window.ComplaintVerdict) is { } worse) yield return new("complaint-rate", worse, Percent(window.ComplaintRate)
                + $" of {window.Deliveries} mails in {window.Window} were complained about: over SES's line ({window.ComplaintVerdict}).",
                "curl 'localhost:8081/stats?by=subject&kind=Complaint'");
        }
    }
    static string Percent(double? rate) => string.Create(CultureInfo.InvariantCulture, $"{rate * 100:0.###} %");
    static string? Worse(string verdict) => verdict switch { "advice" => Warning, "review" or "pause" => Error, _ => null };

    // The newest of each verdict, for a day. Anybody may post, so a stranger brings about no more than a hint, or raw-delivery.
    List<Finding> RefusalFindings() {
        var dayAgo = clock.GetUtcNow().UtcDateTime.AddDays(-1);
        lock (_gate)
            return [.. _refusals.Where(each => each.Message.At > dayAgo).GroupBy(each => each.Verdict)
                .Select(same => Of(same.Last().Message, same.Key, same.Count()))];
    }

    Finding Of(RefusedMessage last, Verdict verdict, int count) {
        string says = $"{count} of the last {MostRefusals} refused messages, the last at {last.At:u} of {last.TopicArn ?? "no topic"}: "
            + $"{last.Status}, {last.Why}.";
        string ifOurs = _options.TopicArns.Contains(last.TopicArn) ? Warning : Hint;
        if (verdict == Verdict.RawDelivery) return new("raw-delivery", Warning, says,
            "aws sns set-subscription-attributes --subscription-arn <arn> --attribute-name RawMessageDelivery --attribute-value false");
        if (verdict == Verdict.Sha1Forbidden) return new("sha1-forbidden", Error, says, SignWith2(last.TopicArn));
        if (verdict == Verdict.UnsupportedVersion) return new("signature-version-refused", ifOurs, says, SignWith2(last.TopicArn));
        if (verdict == Verdict.UnknownTopic) return new("topic-not-allowed", Hint, says,
            $"only if that topic is yours: Sns__TopicArns__{_options.TopicArns.Length}=<its ARN>");
        if (verdict == Verdict.UnusableCertificate)
            return new("certificate-unusable", ifOurs, says, "ls -l " + _options.CertificateDirectory);
        return verdict == Verdict.CertificateUnavailable || verdict == Verdict.NotConfirmed
            ? new("sns-unreachable", Warning, says, AskSns) : new("refused", verdict.Status == 503 ? Warning : Hint, says, Journal);
    }
    const string AskSns = "curl -I https://sns.<region>.amazonaws.com/";

    // Even the quickest of the last messages tells of the future, or comes late.
    static IEnumerable<Finding> ClockFindings(TimeSpan[] delays) {
        double minutes = delays.DefaultIfEmpty().Min().TotalMinutes;
        if (minutes < -5) yield return new("clock-behind", Error, $"This machine's clock is {-minutes:0} minutes behind SNS's.",
            "timedatectl set-ntp true");
        if (minutes > 5 && delays.Length == MostDelays) yield return new("messages-late", Hint,
            $"The last {MostDelays} messages all came {minutes:0} minutes or more after SNS wrote them: they waited in a queue, or this "
            + "machine's clock is ahead.", "timedatectl");
    }

    // SNS renews its certificate in time and names the new one; it is the machine that cannot download that is in trouble.
    IEnumerable<Finding> CertificateFindings() {
        var ends = new List<DateTime>();
        string? simulators = null;
        try {
            foreach (string path in Directory.EnumerateFiles(_options.CertificateDirectory, "SimpleNotificationService-*.pem").Take(100))
                try {
                    using var certificate = X509CertificateLoader.LoadCertificateFromFile(path);
                    ends.Add(certificate.NotAfter.ToUniversalTime());
                    if (certificate.Subject == "CN=FeedbackReceiver simulator" && !environment.IsDevelopment()) simulators = path;
                } catch (CryptographicException) { }
        } catch (Exception e) when (e is IOException or UnauthorizedAccessException) { }
        if (ends.Count == 0) yield break;
        if (simulators is not null) yield return new("simulator-trusted", Error, simulators + " is the simulator's: what it signs is believed here, "
            + "and so is who can read its key.", $"rm {simulators} {Path.Combine(_options.CertificateDirectory, "simulator-key.pem")}");
        var left = ends.Max() - clock.GetUtcNow().UtcDateTime;
        if (left < TimeSpan.FromDays(CertificateDays)) yield return new("certificate-ends", left < TimeSpan.Zero ? Warning : Hint,
            $"The newest certificate in {_options.CertificateDirectory} ends at {ends.Max():u}. SNS will name another by then; this "
            + "machine must be able to fetch it.", AskSns);
    }
}

partial class Disk {
    /// <summary>The bytes of a folder's disk, free or not.</summary>
    public virtual long Size(string folder) => new DriveInfo(folder).TotalSize;
}

// ---- Contract ---------------------------------------------------------------------------------------------------
// The summaries are those of the methods. What a method's type cannot say stands here for the routes of Program.cs and for these; the
// routes of another extra say theirs by WithSummary and Produces, where they are mapped.

/// <summary>A status that a route answers: what it means, and an example of what comes with it.</summary>
sealed record Answers(int Status, string Means, string? ContentType = null, string? Example = null);
/// <summary>What a route takes and answers: the parameters of its query, its body, and every status but those of the guard.</summary>
sealed record Described(string[] Query, (string ContentType, string Example)? Body, params Answers[] Answers);

/// <summary>GET /openapi/v1.json.</summary>
static class Contract {
    const string Json = "application/json", Text = "text/plain", Problems = "application/problem+json", Of = "/{address}";
    const string Suppressed = """
        {"address":"jane@example.com","suppressed":true,"reason":"bounce","since":"2026-11-03T09:00:49.89Z",
        "because":"A mail with the subject \"Your November offers\" bounced for good on 2026-11-03 (General).",
        "event":"010001a1a0a3bfea-0a275bec/bounce/Permanent/jane@example.com","note":null,
        "lift":"curl -X DELETE localhost:8081/suppressed/jane%40example.com"}
        """;
    const string Free = """
        {"address":"nobody@example.com","suppressed":false,"reason":null,"since":null,"because":"Nothing is known against it.","event":null,
        "note":null,"lift":null}
        """;
    const string Event = """
        {"at":"2026-11-03T09:00:49.89Z","address":"jane@example.com","id":"010001a1a0a3bfea-0a275bec/bounce/Permanent/jane@example.com",
        "kind":"Bounce","type":"Permanent","subtype":"General","status":"5.1.1","detail":"smtp; 550 5.1.1 user unknown",
        "recipient":"jane@example.com","mailId":"010001a1a0a3bfea-0a275bec","subject":"Your November offers",
        "source":"news@shop.example.com","configurationSet":"shop-news",
        "snsMessageId":"1a9a4759-863f-52a4-a073-b2361bec84c2","tags":{"campaign":["november-offers"]}}
        """;
    const string Days = """
        {"by":"day","since":"2026-11-24","until":"2026-11-25","scanned":false,"rows":[{"key":"2026-11-24","sends":1000,"deliveries":980,
        "bounces":12,"softBounces":5,"complaints":1,"notSpam":0,"other":2,"bounceRate":0.012,"complaintRate":0.00102}]}
        """;
    const string Status = """
        {"ok":true,"findings":[{"code":"signature-version-1","severity":"hint",
        "says":"arn:aws:sns:eu-west-1:111122223333:email-feedback signs with SHA-1.",
        "mend":"aws sns set-topic-attributes --topic-arn ... --attribute-name SignatureVersion --attribute-value 2"}],"topics":[],
        "rates":[],"lines":{"bounce":[0.02,0.05,0.1],"complaint":[0.0005,0.001,0.005]},"refusals":[],"store":null,"disk":null,
        "startedAt":"2026-11-24T08:00:00Z","errands":[{"name":"hook","state":"told","lagSeconds":0}]}
        """;
    static string ProblemOf(int status, string why) => $$"""{"status":{{status}},"detail":"{{why}}"}""";
    static readonly Answers NoAddress = new(400, "No e-mail address", Problems, ProblemOf(400, "That is no e-mail address.")),
        BadParameter = new(400, "A parameter that cannot be right, by its name", Problems,
            ProblemOf(400, "limit must be a number from 1 to 1000; '0' is not.")),
        TooLarge = new(413, "Over 256 MiB", Problems, ProblemOf(413, "A list has 256 MiB at most.")),
        NotNow = new(503, "Not to be told now; Retry-After says when to ask again", Problems,
            ProblemOf(503, "What is stored cannot be read yet."));
    static readonly string[] Page = [.. Parameters.Filters, "after", "limit", "format"];

    static readonly Dictionary<string, Described> Routes = new() {
        ["POST /sns"] = new([], (Text, """{"Type":"Notification","MessageId":"...","TopicArn":"...","Message":"..."}"""),
            new(200, "On disk, now or before; or confirmed; or genuine but unreadable", Text, "kept\n"),
            new(400, "No SNS envelope", Text, Verdict.UnknownType.Why + "\n"), new(413, "Over 1 MiB", Text, Verdict.TooLarge.Why + "\n"),
            new(403, "Topic, certificate or signature is not right", Text, Verdict.UnknownTopic.Why + "\n"),
            new(503, "Cannot be kept now: SNS tries again", Text, Verdict.Busy.Why + "\n")),
        ["GET /sns"] = new([], null,
            new Answers(200, "How to subscribe a topic", Text, "FeedbackReceiver takes Amazon SNS messages here, by POST.\n")),
        ["GET /health"] = new([], null, new(200, "It can be written", Text, "ok\n"),
            new(503, "It cannot", Text, "the journal cannot be written\n")),
        ["GET /suppressed" + Of] = new([], null, new(200, "Suppressed; X-Suppressed is true", Json, Suppressed), NoAddress,
            new(404, "Not suppressed; X-Suppressed is false", Json, Free), NotNow),
        ["HEAD /suppressed" + Of] = new([], null, new(200, "Suppressed; X-Suppressed is true"), new(400, "No e-mail address"),
            new(404, "Not suppressed; X-Suppressed is false"), new(503, "Not to be told now")),
        ["PUT /suppressed" + Of] = new([], (Json, """{"reason":"manual","note":"asked by phone"}"""),
            new(200, "Was suppressed already", Json, Suppressed), new(201, "Is suppressed now", Json, Suppressed), NoAddress, NotNow),
        ["DELETE /suppressed" + Of] = new([], null, new(204, "Lifted"), NoAddress,
            new(404, "It is not suppressed", Problems, ProblemOf(404, "The address is not suppressed.")), NotNow),
        ["GET /history" + Of] = new([], null, new(200, "Its events, or none", Json,
            $$"""{"address":"jane@example.com","complete":true,"events":[{{Event}}]}"""), NoAddress, NotNow),
        ["DELETE /history" + Of] = new([], null, new(204, "Forgotten"), NoAddress,
            new(404, "Nothing is known of the address", Problems, ProblemOf(404, "Nothing is known of the address.")), NotNow),
        ["GET /suppressed"] = new(["format", "reason", "since", "after", "limit"], null,
            new(200, "The list; ETag and, for a page, Link", Json,
                """{"suppressed":[{"address":"jane@example.com","reason":"bounce","since":"2026-11-03T09:00:49.89Z"}],"next":null}"""),
            new(304, "Nothing has changed since If-None-Match"), BadParameter, NotNow,
            new(505, "HTTP/1.0, by which CSV that breaks off looks whole", Problems, ProblemOf(505, "By HTTP/1.0 a list that breaks off looks like a whole one."))),
        ["HEAD /suppressed"] = new(["format", "reason", "since", "after", "limit"], null, new(200, "ETag"),
            new(304, "Nothing has changed since If-None-Match"), new(400, "A parameter cannot be right"), new(503, "Not to be told now")),
        ["POST /suppressed"] = new(["reason"], (Text, "jane@example.com\njoe@example.com\n"), new(200, "What came of it", Json,
            """{"added":1,"already":1,"skipped":[{"line":3,"why":"no e-mail address"}],"moreSkipped":0}"""),
            BadParameter, TooLarge, NotNow),
        ["POST /sendable"] = new([], (Text, "jane@example.com\njoe@example.com\n"),
            new(200, "Those that are not suppressed; X-Left-Out counts the others", Text, "joe@example.com\n"), TooLarge, NotNow),
        ["GET /metrics"] = new([], null, new Answers(200, "Prometheus' text format", Text, "feedback_receiver_suppressions 1\n")),
        ["GET /bounces"] = Events(Page),
        ["GET /complaints"] = Events(Page),
        ["GET /events"] = Events([.. Page, "kind"]),
        ["GET /stats"] = new(["by", .. Parameters.Filters, "kind", "limit"], null, new(200, "The rows", Json, Days), BadParameter, NotNow),
        ["GET /status"] = new([], null, new(200, "What is known", Json, Status),
            new(503, "The same, without what the store knows", Json, Status)),
        ["GET /"] = new([], null, new Answers(200, "dashboard.html", "text/html", "<!doctype html>")),
        ["GET /live"] = new([], null, new(200, "How many messages were kept since the start, whenever that changes", "text/event-stream",
            "data: 7\n\n"), new(503, "As many as may do so", Problems, ProblemOf(503, "As many pages as may follow do so already."))),
        ["GET /openapi/v1.json"] = new([], null, new Answers(200, "OpenAPI 3.1", Json, """{"openapi":"3.1.1"}""")),
    };

    static Described Events(string[] query) => new(query, null, new(200,
        "The page. `next`, in the Link header too, is the `after` of the one that follows; null: there is none", Json,
        $$"""{"events":[{{Event}}],"next":"01a1a0bee20086947da44f3d33fc2d4e"}"""), BadParameter, NotNow);

    static readonly Dictionary<string, (string Means, string Example)> Known = new() {
        ["address"] = ("An e-mail address, as people write it", "jane@example.com"),
        ["since"] = ("From this date or time on, UTC", "2026-11-24"),
        ["until"] = ("Up to this date or time, which is not included", "2026-11-25T08:00:00Z"),
        ["kind"] = ("The kind of event, as SES says it", "Complaint"),
        ["type"] = ("bounceType or complaintFeedbackType, as SES says it", "Permanent"),
        ["subtype"] = ("bounceSubType, as SES says it", "MailboxFull"),
        ["domain"] = ("The recipient's", "example.com"),
        ["subject"] = ("The mail's, the whole of it", "Your November offers"),
        ["source"] = ("The sender, as SES says it", "news@shop.example.com"),
        ["configurationSet"] = ("The mail's", "shop-news"),
        ["tag"] = ("One of the mail's, as NAME:VALUE", "campaign:november-offers"),
        ["after"] = ("The `next` of the page before", "01a1a0bee20086947da44f3d33fc2d4e"),
        ["limit"] = ("1 to 1000; of the list of suppressions to 100,000", "100"),
        ["format"] = ("json or csv; of the list of suppressions also ses", "json"),
        ["reason"] = ("Why it is suppressed", "bounce"),
        ["by"] = ("day, type, domain, subject, source, configurationSet, tag:NAME, didYouMean or prevented. Of the filters, day takes "
            + "kind, type and subtype, and the last two none", "day"),
    };

    /// <summary>Adds what the methods cannot say, and the routes that nothing was generated for.</summary>
    public static Task DescribeAsync(OpenApiDocument document, OpenApiDocumentTransformerContext context, CancellationToken cancellation) {
        document.Info = new() {
            Title = "FeedbackReceiver", Version = "1", Description = "Who bounced and who complained, as SES told SNS.",
        };
        document.Tags?.Clear();
        document.AddComponent("key", new OpenApiSecurityScheme {
            Type = SecuritySchemeType.Http, Scheme = "bearer",
            Description = "Api:Key, as a Basic password too. Not wanted on the private listener by this machine.",
        });
        foreach (var endpoint in context.ApplicationServices.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()) {
            string path = "/" + endpoint.RoutePattern.RawText!.TrimStart('/').Replace("**", "", Ordinal);
            if (!document.Paths.TryGetValue(path, out var item)) document.Paths[path] = item = new OpenApiPathItem();
            foreach (string method in endpoint.Metadata.GetMetadata<IHttpMethodMetadata>()?.HttpMethods ?? ["GET"]) {
                if (item.Operations?.TryGetValue(new(method), out var operation) is not true) {
                    operation = new() { Summary = endpoint.Metadata.GetMetadata<IEndpointSummaryMetadata>()?.Summary };
                    ((OpenApiPathItem)item).AddOperation(new(method), operation);
                }
                Describe(operation!, Routes.GetValueOrDefault($"{method} {path}"), endpoint, document);
            }
        }
        return Task.CompletedTask;
    }

    static void Describe(OpenApiOperation operation, Described? route, RouteEndpoint endpoint, OpenApiDocument document) {
        operation.Tags?.Clear(); // the names of classes
        string[] known = [.. (operation.Parameters ?? []).Select(parameter => parameter.Name!)];
        var inPath = endpoint.RoutePattern.Parameters.Select(parameter => parameter.Name).Except(known);
        operation.Parameters = [.. operation.Parameters ?? [], .. inPath.Select(name => Parameter(name, ParameterLocation.Path)),
            .. (route?.Query ?? []).Select(name => Parameter(name, ParameterLocation.Query))];
        if (route?.Body is var (type, example)) operation.RequestBody = new OpenApiRequestBody { Content = Content(type, example, null) };
        var responses = operation.Responses ??= [];
        foreach (var answer in route?.Answers ?? []) {
            string status = answer.Status.ToString(CultureInfo.InvariantCulture);
            var schema = responses.GetValueOrDefault(status)?.Content?.Values.FirstOrDefault()?.Schema;
            var content = answer.Example is null ? null : Content(answer.ContentType!, answer.Example, schema);
            responses[status] = new OpenApiResponse { Description = answer.Means, Content = content };
        }
        if (endpoint.Metadata.GetMetadata<IAllowAnonymous>() is not null) return;
        operation.Security = [new() { [new OpenApiSecuritySchemeReference("key", document)] = [] }];
        responses.TryAdd("401", new OpenApiResponse { Description = "Api:Key is wanted" });
        responses.TryAdd("403", new OpenApiResponse { Description = "Asked by another name than localhost, without the key" });
        responses.TryAdd("404", new OpenApiResponse { Description = "On the webhook listener, while no Api:Key is set" });
    }

    static OpenApiParameter Parameter(string name, ParameterLocation where) {
        var (means, example) = Known.GetValueOrDefault(name, (name, "..."));
        return new() {
            Name = name, In = where, Required = where == ParameterLocation.Path, Description = means, Example = JsonValue.Create(example),
            Schema = new OpenApiSchema { Type = JsonSchemaType.String },
        };
    }

    static Dictionary<string, OpenApiMediaType> Content(string type, string example, IOpenApiSchema? schema) => new() {
        [type] = new() {
            Schema = schema ?? new OpenApiSchema { Type = !type.EndsWith("json", Ordinal) ? JsonSchemaType.String : JsonSchemaType.Object },
            Example = !type.EndsWith("json", Ordinal) ? JsonValue.Create(example) : JsonNode.Parse(example),
        },
    };
}

// ---- The page ---------------------------------------------------------------------------------------------------

/// <summary>GET /: dashboard.html, under a policy by which only its own script and style run, nothing comes from or goes elsewhere,
/// and no text can become markup. Where the file is missing there is no page.</summary>
static class Page {
    public static void MapTo(WebApplication app) {
        using var file = typeof(Page).Assembly.GetManifestResourceStream("dashboard.html");
        if (file is null) return;
        string html = new StreamReader(file).ReadToEnd();
        string policy = $"default-src 'none'; script-src {HashOf("script")}; style-src {HashOf("style")}; connect-src 'self'; "
            + "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
            + "trusted-types 'none'";
        app.MapGet("/", http => {
            http.Response.Headers.ContentSecurityPolicy = policy;
            http.Response.Headers.XContentTypeOptions = "nosniff";
            http.Response.Headers["Referrer-Policy"] = "no-referrer";
            http.Response.Headers.CacheControl = "no-cache";
            http.Response.ContentType = "text/html; charset=utf-8";
            return http.Response.WriteAsync(html);
        }).WithSummary("GET /: the page.");
        app.MapGet("/live", (HttpContext http, Live live) => live.FollowAsync(http))
            .WithSummary("GET /live: Server-Sent Events, with the number of messages kept.");

        string HashOf(string tag) => html.Split($"<{tag}>") is [_, var rest] && rest.Split($"</{tag}>") is [var text, _]
            ? $"'sha256-{Convert.ToBase64String(SHA256.HashData(Encoding.UTF8.GetBytes(text)))}'"
            : throw new InvalidOperationException($"dashboard.html has not exactly one <{tag}>");
    }
}

/// <summary>GET /live, as Server-Sent Events: how many messages were kept since the start, at most once in a second. Whoever reads
/// slowly misses numbers, never the newest.</summary>
sealed class Live(Intake intake, TimeProvider clock, IHostApplicationLifetime lifetime) : IHostedService {
    const int MostFollowers = 32;
    static readonly TimeSpan Pause = TimeSpan.FromSeconds(1), Heartbeat = TimeSpan.FromSeconds(15);
    readonly Lock _gate = new();
    volatile Channel<long>[] _followers = [];
    long _kept;

    public Task StartAsync(CancellationToken cancellationToken) {
        intake.Answered += Hear;
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) {
        intake.Answered -= Hear;
        return Task.CompletedTask;
    }

    void Hear(Verdict verdict, Envelope? envelope) {
        if (verdict.Status != 200) return;
        long kept = Interlocked.Increment(ref _kept);
        foreach (var follower in _followers) follower.Writer.TryWrite(kept);
    }

    public async Task FollowAsync(HttpContext http) {
        var news = Channel.CreateBounded<long>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropOldest });
        lock (_gate) if (_followers.Length < MostFollowers) _followers = [.. _followers, news];
        if (!_followers.Contains(news)) {
            http.Response.Headers.RetryAfter = "15";
            await Problem.Of(503, "As many pages as may follow do so already.").ExecuteAsync(http);
            return;
        }
        using var ends = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, lifetime.ApplicationStopping);
        try {
            (http.Response.ContentType, http.Response.Headers.CacheControl) = ("text/event-stream", "no-store");
            http.Response.Headers["X-Accel-Buffering"] = "no"; // or nginx keeps events back
            for (string next = ": hello\n\n"; ; next = await NextAsync(news.Reader, ends.Token)) {
                await http.Response.WriteAsync(next, ends.Token);
                await http.Response.Body.FlushAsync(ends.Token);
                await Task.Delay(Pause, clock, ends.Token);
            }
        } catch (OperationCanceledException) { } finally {
            lock (_gate) _followers = [.. _followers.Where(follower => follower != news)];
        }
    }
    // Silence would look like a connection that is gone, to proxies and to us.
    async Task<string> NextAsync(ChannelReader<long> news, CancellationToken ends) {
        using var silence = new CancellationTokenSource(Heartbeat, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(silence.Token, ends);
        try {
            return $"data: {await news.ReadAsync(either.Token)}\n\n";
        } catch (OperationCanceledException) when (!ends.IsCancellationRequested) { return ": silence\n\n"; }
    }
}

// ---- Plumbing ---------------------------------------------------------------------------------------------------

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(StatsReport)), JsonSerializable(typeof(StatusReport))]
sealed partial class ReportsJson : JsonSerializerContext;
