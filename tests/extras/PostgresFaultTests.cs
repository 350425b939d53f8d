using System.Diagnostics;
using System.Globalization;
using System.Net;

/// <summary>Three receivers, each a process of its own, behind HAProxy on one PostgreSQL, while things go wrong.</summary>
[Collection("Alone"), Trait("Category", "Load")]
public sealed class PostgresFaultTests {
    const int Posts = 20_000, Distinct = 16_000, Connections = 64;
    static readonly string? HaProxy = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Append("/usr/sbin")
        .Select(folder => Path.Combine(folder, "haproxy")).FirstOrDefault(File.Exists);
    readonly string _folder = Directory.CreateTempSubdirectory("receivers-").FullName;
    readonly FakeSns[] _sns = [.. Enumerable.Range(0, Environment.ProcessorCount).Select(_ => new FakeSns())];

    // Of every ten, by number: what SES says, the events of it, and whom it suppresses.
    static (string Body, int Events, string[] Suppressed) Message(int number, int addresses, Func<string, string> sign) {
        string one = $"a{number * 7 % addresses}@example.com", two = $"a{(number * 13 + addresses / 2) % addresses}@example.com",
            mail = $"0100019a{number:x8}-mail";
        string at = $"2026-11-24T{number % 24:00}:00:00.000Z";
        string[] both = one == two ? [one] : [one, two];
        return (number % 10) switch {
            < 3 => (sign(FakeSns.SesBounce([one], mail, at: at)), 1, [one]),
            < 5 => (sign(FakeSns.SesBounce(both, mail, at: at)), both.Length, both),
            < 6 => (sign(FakeSns.SesBounce([one], mail, "Transient", "MailboxFull", at)), 1, []),
            < 8 => (sign(FakeSns.SesComplaint(both, mail, at: at)), both.Length, both),
            _ => (sign(FakeSns.SesDelivery(one, mail, at)), 1, []),
        };
    }

    (string Body, int Events, string[] Suppressed)[] Sign(int addresses) {
        var messages = new (string, int, string[])[Distinct];
        Parallel.For(0, _sns.Length, signer => { // a key signs for one at a time
            for (int number = signer; number < Distinct; number += _sns.Length)
                messages[number] = Message(number, addresses, text => { // FakeSns numbers its messages itself, and each of ours does
                    var envelope = _sns[signer].Notification(text);
                    envelope["MessageId"] = $"00000000-0000-4000-8000-{number:x12}";
                    return _sns[signer].Sign(envelope);
                });
        });
        return messages;
    }

    async Task<(Process Process, Uri Url)> BalanceAsync(IEnumerable<OwnProcess> receivers) {
        int port = Moto.FreePort();
        string path = Path.Combine(_folder, "haproxy.cfg");
        var servers = receivers.Select((receiver, i) =>
            $"server receiver{i} {receiver.Webhook.BaseAddress!.Authority} check inter 250ms fall 2 rise 1");
        await File.WriteAllTextAsync(path, $"""
            defaults
                mode http
                timeout connect 2s
                timeout client 30s
                timeout server 30s
                option redispatch
            frontend sns
                bind 127.0.0.1:{port}
                default_backend receivers
            backend receivers
                balance roundrobin
                option httpchk GET /health
                {string.Join("\n    ", servers)}

            """, TestContext.Current.CancellationToken);
        var start = new ProcessStartInfo(HaProxy!, ["-f", path, "-db"]) { RedirectStandardError = true, RedirectStandardOutput = true };
        var process = Process.Start(start)!;
        process.ErrorDataReceived += (_, _) => { };
        process.BeginErrorReadLine();
        return (process, new Uri($"http://127.0.0.1:{port}"));
    }

    /// <summary>Posts as SNS does: whatever is no 200 is posted again a little later. Returns how many posts it took.</summary>
    static async Task<int> DeliverAsync(HttpClient client, string body) {
        for (int tries = 1; ; tries++, await Task.Delay(Random.Shared.Next(50, 400)))
            try {
                using var content = new StringContent(body);
                using var response = await client.PostAsync("/sns", content);
                if (response.StatusCode == HttpStatusCode.OK) return tries;
                Assert.True(response.StatusCode is HttpStatusCode.ServiceUnavailable or HttpStatusCode.BadGateway
                    or HttpStatusCode.GatewayTimeout, $"{response.StatusCode}");
                Assert.True(tries < 1000, "it is never taken");
            } catch (HttpRequestException) { } // nobody listens, or the connection broke
    }

    // Duplicates among few addresses, so that nearly all of it is asked; or first everything that is new, of addresses that are, so that it
    // is guessed while things go wrong.
    [Theory]
    [InlineData(3_000, true)]
    [InlineData(1_000_000, false)]
    public async Task Whatever_is_killed_or_restarted_every_acknowledged_message_is_there_and_counted_once(int addresses, bool mixed) {
        Assert.SkipUnless(HaProxy is not null, "haproxy is not on PATH: apt-get install haproxy");
        await using var cluster = new PostgresCluster();
        string database = await cluster.NewDatabaseAsync();
        var messages = Sign(addresses);
        foreach (var sns in _sns) sns.WriteCertificate(_folder);
        OwnProcess[] receivers = [.. await Task.WhenAll(Enumerable.Range(0, 3)
            .Select(_ => OwnProcess.StartAsync(_folder, "ConnectionStrings__Feedback=" + database,
                "DOTNET_SYSTEM_NET_SOCKETS_INLINE_COMPLETIONS=1")))]; // as README.md advises
        var (proxy, url) = await BalanceAsync(receivers);
        try {
            using var client = new HttpClient(new SocketsHttpHandler { MaxConnectionsPerServer = Connections }) { BaseAddress = url };
            int[] order = [.. Enumerable.Range(0, Distinct),
                .. Random.Shared.GetItems(Enumerable.Range(0, Distinct).ToArray(), Posts - Distinct)];
            Random.Shared.Shuffle(mixed ? order : order.AsSpan(0, Distinct));
            var (next, done, posts) = (-1, 0, 0);
            var posting = Task.WhenAll(Enumerable.Range(0, Connections).Select(async _ => {
                for (int at; (at = Interlocked.Increment(ref next)) < Posts; Interlocked.Increment(ref done))
                    Interlocked.Add(ref posts, await DeliverAsync(client, messages[order[at]].Body));
            }));
            Task AfterAsync(int count) => Eventually.TrueAsync(() => Volatile.Read(ref done) >= count || posting.IsFaulted, seconds: 240);
            await AfterAsync(4_000);
            await receivers[0].KillAsync();
            foreach (bool immediate in (bool[])[false, true]) {
                await AfterAsync(immediate ? 13_000 : 8_000);
                await cluster.StopAsync(immediate);
                await cluster.StartAsync();
            }
            await posting;
            TestContext.Current.TestOutputHelper!.WriteLine($"{posts} posts until {Posts} were acknowledged");
            await AssertCompleteAsync(database, messages);
            Assert.All(receivers[1..], receiver => Assert.False(receiver.HasEnded));
            foreach (var receiver in receivers[1..])
                Assert.Equal("ok\n", await receiver.Webhook.GetStringAsync("/health", TestContext.Current.CancellationToken));
        } finally {
            proxy.Kill();
            foreach (var receiver in receivers) receiver.Dispose();
        }
    }

    static async Task AssertCompleteAsync(string database, (string Body, int Events, string[] Suppressed)[] messages) {
        Task<string[]> QueryAsync(string sql) => PostgresCluster.QueryAsync(database, sql);
        Assert.Equal([$"{Distinct}"], await QueryAsync("select count(distinct entry::json -> 'message' ->> 'MessageId') from entries"));
        Assert.Equal([$"{Distinct}"], await QueryAsync("select count(*) from entries"));
        const string events = """
            (select bounced_at as at, 'Bounce' as kind, type, subtype from email_bounces union all select complained_at, 'Complaint', type, subtype from email_complaints
            union all select at, kind, type, subtype from email_events) as event
            """;
        Assert.Equal([messages.Sum(message => message.Events).ToString(CultureInfo.InvariantCulture)],
            await QueryAsync("select count(*) from " + events));
        foreach (var (table, format) in ((string, string)[])[("daily", "YYYY-MM-DD"), ("hourly", "YYYY-MM-DD\"T\"HH24")])
            Assert.Equal(await QueryAsync($"""
                select key, count(*) from (select to_char(at at time zone 'UTC', '{format}') || '|' || kind || '|' || coalesce(type, '') || '|' || coalesce(subtype, '') as key
                from {events}) as recount group by key order by key collate "C"
                """),
                await QueryAsync($"select key, sum(n)::bigint from {table} group by key order by key"));
        Assert.Equal(messages.SelectMany(message => message.Suppressed).Distinct().Order(StringComparer.Ordinal),
            await QueryAsync("select email from suppressions where reason is not null order by email"));
        Assert.Equal(await QueryAsync("select count(*) from suppressions where reason is not null"),
            await QueryAsync("select sum(n)::bigint from totals where name = 'suppressed'"));
        Assert.Equal(["0"], await QueryAsync("select count(*) from suppressions where reason is null"));
    }
}
