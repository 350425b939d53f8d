using System.Diagnostics;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

/// <summary>The same facts, against PostgreSQL.</summary>
public sealed class PostgresContractTests(PostgresCluster cluster) : StoreContractTests {
    private protected override async Task<string[]> NewStoreAsync(string folder) =>
        ["ConnectionStrings:Feedback=" + await cluster.NewDatabaseAsync()];
}

/// <summary>ConnectionStrings:Feedback=Host=...: what is PostgreSQL's alone, and what LiteDB's receiver leaves to extras.</summary>
public sealed class PostgresTests(PostgresCluster cluster) {
    const string Jane = "jane@example.com", Joe = "joe@example.com";

    static readonly string[] Hook = ["Hook:Url=http://localhost:9", "Hook:Secret=whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];

    static Task<ReceiverApp> StartAsync(string database, params string[] settings) =>
        ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database, .. settings]);
    static IFeedbackStore Store(ReceiverApp app) => app.Services.GetRequiredService<IFeedbackStore>();
    static Entry Manual(string address, DateTimeOffset at, string? note = null) => new(at, Suppress: new(address, Reason.Manual, note));
    static async Task<string[]> SuppressionsAsync(ReceiverApp app, string after = "") =>
        [.. await Store(app).SuppressionsAsync(after, TestContext.Current.CancellationToken)
            .Select(each => each.Address).ToListAsync()];
    static async Task<PreparedEntry[]> EntriesAsync(string database, string order) =>
        [.. (await PostgresCluster.QueryAsync(database, "select entry from entries order by " + order))
            .Select(line => PreparedEntry.Of(Entry.Read(System.Text.Encoding.UTF8.GetBytes(line))!))];
    static async Task CommitAsync(ReceiverApp app, params Entry[] entries) {
        foreach (var entry in entries) Assert.Equal(Commit.Kept, await Store(app).CommitAsync(entry));
    }

    [Theory]
    [InlineData("data/feedback.db", "neither Filename=<path> nor PostgreSQL's")]
    [InlineData("Database=feedback", "neither Filename=<path> nor PostgreSQL's")]
    [InlineData("Host=db;Colour=blue", "neither Filename=<path> nor PostgreSQL's")]
    [InlineData("Host=db;Port=many;Password=secret-word", "neither Filename=<path> nor PostgreSQL's")]
    [InlineData("Host=db;Multiplexing=true;Password=secret-word", "Multiplexing")]
    [InlineData("Host=db;Minimum Pool Size=101;Password=secret-word", "Max Pool Size")]
    [InlineData("Host=127.0.0.1;Port=1;Password=secret-word", "Connection refused")]
    public async Task A_wrong_connection_string_stops_the_start_and_is_named(string connection, string why) {
        var refusal = await Assert.ThrowsAsync<Refusal>(() => StartAsync(connection));
        Assert.StartsWith("ConnectionStrings:Feedback", refusal.Message, StringComparison.Ordinal);
        Assert.Contains(why, refusal.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("secret-word", refusal.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("", ";Read Buffer Size=512", "512")] // Npgsql says so only when it connects
    [InlineData("encoding LATIN1 template template0 locale 'C'", "", "encoding UTF8")]
    public async Task A_database_that_cannot_be_used_stops_the_start_and_is_named(string made, string with, string why) {
        string database = await cluster.NewDatabaseAsync(made);
        var refusal = await Assert.ThrowsAsync<Refusal>(() => StartAsync(database + with));
        Assert.Matches($"^ConnectionStrings:Feedback: .*{why}", refusal.Message);
    }

    [Theory]
    [InlineData("Host=db", 5, 5, 32 << 10, 50, 20)]
    [InlineData("Host=db;Timeout=60;Command Timeout=60;Cancellation Timeout=20000", 5, 5, 32 << 10, 50, 20)] // SNS would not wait for it
    [InlineData("Host=db;Timeout=0;Command Timeout=0;Cancellation Timeout=0;Maximum Pool Size=1", 5, 5, 32 << 10, 50, 14)] // for ever; one for all
    [InlineData("Host=db;Cancellation Timeout=-1", 5, 5, 32 << 10, 50, 20, -1)] // Npgsql's way to ask for no cancellation
    [InlineData("Host=db;Timeout=2;Command Timeout=3;Cancellation Timeout=500;Write Buffer Size=8192;Max Auto Prepare=7;Maximum Pool Size=90",
        2, 3, 8192, 7, 90, 500)]
    public void What_a_connection_string_says_stands_but_that_SNS_waits_no_longer_than_fifteen_seconds(
        string connection, int timeout, int commandTimeout, int writeBuffer, int prepared, int pool, int cancellation = 1000) {
        var settings = PostgresStore.SourceOf(connection)!.ConnectionStringBuilder;
        Assert.Equal((timeout, commandTimeout, cancellation, writeBuffer, prepared, pool), (settings.Timeout, settings.CommandTimeout,
            settings.CancellationTimeout, settings.WriteBufferSize, settings.MaxAutoPrepare, settings.MaxPoolSize));
    }

    [Fact]
    public async Task No_journal_and_no_LiteDB_file_is_made() {
        await using var app = await StartAsync(await cluster.NewDatabaseAsync());
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        Assert.False(Directory.Exists(app.JournalFolder));
        Assert.False(File.Exists(app.FeedbackDb));
        Assert.Equal("PostgreSQL", (await Store(app).StateAsync()).Name);
    }

    [Fact]
    public async Task Ten_receivers_start_at_once_and_what_one_keeps_every_other_knows() {
        string database = await cluster.NewDatabaseAsync();
        var apps = await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => StartAsync(database)));

        for (int i = 0; i < apps.Length; i++) {
            Assert.Equal(200, (await apps[i].PostAsync(apps[i].Sns.Bounce($"a{i}@example.com", $"mail-{i}"))).Status);
            foreach (var other in apps) Assert.Equal(200, await other.StatusAsync($"/suppressed/a{i}@example.com"));
        }

        Assert.Equal(["1"], await PostgresCluster.QueryAsync(database, "select value from meta where name = 'schema'"));
        Assert.Equal(["10"], await PostgresCluster.QueryAsync(database, "select sum(n) from daily"));
        await Task.WhenAll(apps.Select(app => app.DisposeAsync().AsTask()));
    }

    [Theory]
    [InlineData(Sql.Find)]
    [InlineData(Sql.Lock)]
    [InlineData("delete from suppressions where email = any($1)")]
    public async Task An_address_is_found_by_its_key_however_few_there_were_when_PostgreSQL_last_looked(string sql) {
        await using var app = await StartAsync(await cluster.NewDatabaseAsync());
        await using var connection = await app.Services.GetRequiredService<NpgsqlDataSource>()
            .OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand($"analyze suppressions; prepare asked (text[]) as {sql}", connection);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        command.CommandText = "explain (verbose) execute asked (array['jane@example.com'])";
        await using var rows = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        string plan = "";
        while (await rows.ReadAsync(TestContext.Current.CancellationToken)) plan += rows.GetString(0) + "\n";
        Assert.Contains("suppressions_pkey", plan, StringComparison.Ordinal);
        Assert.Contains("$1", plan, StringComparison.Ordinal); // made once, for any array
    }

    [Fact]
    public async Task While_one_receiver_makes_the_tables_another_waits() {
        string database = await cluster.NewDatabaseAsync();
        await WhileOneWaitsAsync(database, $"select pg_advisory_xact_lock({PostgresSchema.Lock})", async () => {
            await using var app = await StartAsync(database);
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        }, "do $$ begin assert not exists (select from pg_tables where schemaname = 'public'); end $$", commits: true);
    }

    [Fact]
    public async Task A_newer_schema_refuses_the_start() {
        string database = await cluster.NewDatabaseAsync();
        await using (var app = await StartAsync(database)) await app.StopAsync();
        await PostgresCluster.ExecuteAsync(database, "update meta set value = '99' where name = 'schema'");
        var refusal = await Assert.ThrowsAsync<Refusal>(() => StartAsync(database));
        Assert.Contains("schema 99, and this program knows 1", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_same_messages_to_several_receivers_in_any_order_are_counted_once_without_a_deadlock() {
        string database = await cluster.NewDatabaseAsync();
        var apps = await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => StartAsync(database, "Suppression:SoftBounceLimit=2")));
        var sns = apps[0].Sns;
        foreach (var app in apps) sns.WriteCertificate(app.Folder);
        // Each names several people, in an order of its own.
        string[] bodies = [.. Enumerable.Range(0, 300).Select(mail => sns.Signed(FakeSns.SesBounce(
            [.. Enumerable.Range(0, 5).Select(i => $"a{(mail * 7 + i * 11) % 40}@example.com")],
                $"mail-{mail}", mail % 2 == 0 ? "Permanent" : "Transient")))];

        var answers = await Task.WhenAll(apps.SelectMany((app, i) => bodies
            .OrderBy(body => HashCode.Combine(body.Length, i, body.GetHashCode(StringComparison.Ordinal)))
            .Select(body => app.PostAsync(body))));

        Assert.All(answers, answer => Assert.Equal((200, "kept"), answer));
        Assert.Equal(["1500"], await PostgresCluster.QueryAsync(database, "select sum(n) from daily"));
        Assert.Equal(["1500 1500"], await PostgresCluster.QueryAsync(database, "select count(*), count(distinct id) from email_bounces"));
        Assert.Equal(["40 40"], await PostgresCluster.QueryAsync(database,
            "select count(*), (select sum(n) from totals where name = 'suppressed') from suppressions where reason = 'bounce'"));
        Assert.Equal(["300"], await PostgresCluster.QueryAsync(database, "select count(*) from entries"));
        Assert.All(apps, app => Assert.DoesNotContain("cannot be used", app.Log.Text, StringComparison.Ordinal));
        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database,
            "select deadlocks from pg_stat_database where datname = current_database()"));
        await Task.WhenAll(apps.Select(app => app.DisposeAsync().AsTask()));
    }

    [Fact]
    public async Task Where_messages_are_not_kept_their_ids_and_events_are_and_whatever_has_no_events_is_kept_whole() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, "Postgres:KeepMessages=false");
        string bounce = app.Sns.Bounce(Jane), unread = app.Sns.Signed("not JSON");
        foreach (string body in new[] { bounce, bounce, unread }) Assert.Equal(200, (await app.PostAsync(body)).Status);
        await CommitAsync(app, new Entry(app.Clock.GetUtcNow(), Lift: new(Joe)));

        Assert.Equal(["1", "2"], [.. await PostgresCluster.QueryAsync(database, "select count(*) from entries where entry is null"),
            .. await PostgresCluster.QueryAsync(database, "select count(*) from entries where entry like '%not JSON%' or entry like '%lift%'")]);
        Assert.Equal([$"{Jane} Permanent 1"], await PostgresCluster.QueryAsync(database,
            "select email || ' ' || type || ' ' || (select sum(n) from daily) from email_bounces where mail ? 'messageId'"));
        Assert.True((await Store(app).FindAsync(Jane))!.Suppressed);
    }

    [Fact]
    public async Task A_setting_that_is_neither_true_nor_false_stops_the_start_and_is_named() {
        string database = await cluster.NewDatabaseAsync();
        var error = await Assert.ThrowsAsync<InvalidOperationException>(() => StartAsync(database, "Postgres:KeepMessages=perhaps"));
        Assert.Contains("Postgres:KeepMessages", error.Message, StringComparison.Ordinal);
        Assert.IsType<FormatException>(error.InnerException); // so the start says it in one line
    }

    [Fact]
    public async Task A_stored_message_keeps_its_signature() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        string body = app.Sns.Signed(FakeSns.SesBounce([Jane])
            .Replace("Your offers", @"\u0000 J\u00f6rg \ud83d", StringComparison.Ordinal));
        await app.PostAsync(body);

        var kept = Entry.Read(System.Text.Encoding.UTF8.GetBytes(
            (await PostgresCluster.QueryAsync(database, "select entry from entries"))[0]))!.Message!;

        var (sent, certificate) = (JsonElement.Parse(body), SigningCertificate.Parse(app.Sns.Pem)!);
        Assert.Equal(sent.GetProperty("Signature").GetString(), kept.Signature);
        Assert.Null(certificate.Verify(kept, 2, app.Clock.GetUtcNow()));
    }

    [Fact]
    public async Task While_an_ending_connection_is_all_that_is_there_SNS_and_lookups_are_told_503_and_no_restart_is_needed() {
        await using var own = new PostgresCluster();
        string database = await own.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        foreach (bool immediate in (bool[])[false, true]) {
            await own.StopAsync(immediate);
            string while503 = app.Sns.Bounce($"{immediate}@example.com", $"mail-{immediate}");
            Assert.Equal((503, "the journal cannot be written now"), await app.PostAsync(while503));
            foreach (string path in (string[])["/suppressed/" + Jane, "/history/" + Jane]) Assert.Equal(503, await app.StatusAsync(path));
            Assert.Null(await Store(app).FindAsync([Jane]));
            Assert.False(await Store(app).IsWritableAsync());
            Func<Task>[] asks = [() => Store(app).StateAsync(), () => Store(app).CountsAsync(true, default),
                () => Store(app).SuppressionsVersionAsync(), () => SuppressionsAsync(app)];
            foreach (var ask in asks) await Assert.ThrowsAsync<Unavailable>(ask);
            await own.StartAsync();
            Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
            Assert.Equal(200, (await app.PostAsync(while503)).Status);
            Assert.True(await Store(app).IsWritableAsync());
        }
        Assert.Equal(["3"], await PostgresCluster.QueryAsync(database, "select sum(n) from daily"));
        Assert.Contains("PostgreSQL could not be used", Assert.Single((await Store(app).StateAsync()).Findings), StringComparison.Ordinal);
        Assert.DoesNotContain("@example.com", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_may_lose_what_it_acknowledged_is_reported_and_left_as_it_is() {
        string database = await cluster.NewDatabaseAsync();
        string name = database.Split('=')[^1];
        await PostgresCluster.ExecuteAsync(database, $"alter database {name} set synchronous_commit = off");
        await using var app = await StartAsync(database);
        Assert.StartsWith("synchronous_commit is off", Assert.Single((await Store(app).StateAsync()).Findings), StringComparison.Ordinal);
        Assert.Equal(["off"], await PostgresCluster.QueryAsync(database, "show synchronous_commit"));
    }

    [Fact]
    public async Task A_read_only_server_keeps_nothing_and_is_not_healthy_but_look_ups_go_on_and_no_restart_is_needed_afterwards() {
        string database = await cluster.NewDatabaseAsync(), name = database.Split('=')[^1];
        // As after a failover to a standby. What connected before stays as it was, so connections must go, too.
        Task ReadOnlyAsync(string value) => PostgresCluster.ExecuteAsync(cluster.For("postgres"),
            $"alter database {name} set default_transaction_read_only = {value}");
        await using var app = await StartAsync(database);
        Task<HttpResponseMessage> HealthAsync() => app.Webhook.GetAsync("/health", TestContext.Current.CancellationToken);
        await app.PostAsync(app.Sns.Bounce(Jane));
        foreach (bool healthFirst in (bool[])[true, false]) {
            string body = app.Sns.Bounce(Joe, $"mail-{healthFirst}");
            await ReadOnlyAsync("on");
            await PostgresCluster.ExecuteAsync(cluster.For("postgres"),
                $"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
            Assert.Equal(503, (await app.PostAsync(body)).Status);
            Assert.Equal(503, (int)(await HealthAsync()).StatusCode);
            Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
            Assert.Single(await app.HistoryAsync(Jane));
            await ReadOnlyAsync("off");
            if (healthFirst) Assert.Equal(200, (int)(await HealthAsync()).StatusCode); // or a balancer would never send anything
            Assert.Equal(200, (await app.PostAsync(body)).Status);
        }
        Assert.Equal(2, (await app.HistoryAsync(Joe)).Length);
    }

    [Fact]
    public async Task Suppressions_are_listed_in_order_after_any_address_and_the_version_changes_with_them() {
        await using var app = await StartAsync(await cluster.NewDatabaseAsync());
        Assert.Empty(await SuppressionsAsync(app));
        string empty = await Store(app).SuppressionsVersionAsync();
        await Task.WhenAll(Enumerable.Range(0, 1205)
            .Select(number => Store(app).CommitAsync(Manual($"a{number:0000}@example.com", app.Clock.GetUtcNow()))));
        await CommitAsync(app, Manual("Z@example.com", app.Clock.GetUtcNow()), Manual("\u00e9@example.com", app.Clock.GetUtcNow()));
        string full = await Store(app).SuppressionsVersionAsync();
        string[] all = await SuppressionsAsync(app);

        Assert.Equal(1207, all.Length);
        Assert.Equal(all.Order(StringComparer.Ordinal), all);
        Assert.Equal(all[1001..], await SuppressionsAsync(app, all[1000]));
        Assert.Empty(await SuppressionsAsync(app, all[^1]));
        foreach (string none in (string[])["\0", "\0\uffff", all[1000] + "\0", all[1000] + "\0z"])
            Assert.Equal(none[0] == 0 ? all : all[1001..], await SuppressionsAsync(app, none));
        Assert.NotEqual(empty, full);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane)))).Status);
        Assert.Equal(full, await Store(app).SuppressionsVersionAsync());
        await CommitAsync(app, new Entry(app.Clock.GetUtcNow(), Lift: new(all[0])));
        Assert.Equal(all[1..], await SuppressionsAsync(app));
        Assert.NotEqual(full, await Store(app).SuppressionsVersionAsync());
    }

    [Fact]
    public async Task Two_databases_that_were_one_never_have_the_same_version_of_the_suppressions() {
        string database = await cluster.NewDatabaseAsync(), name = database.Split('=')[^1];
        await using (var both = await StartAsync(database + ";Pooling=false")) await CommitAsync(both, Manual(Jane, both.Clock.GetUtcNow()));
        string copy = await cluster.NewDatabaseAsync("template " + name);
        await using var app = await StartAsync(database);
        await using var other = await StartAsync(copy);
        await CommitAsync(app, Manual(Joe, app.Clock.GetUtcNow()));
        await CommitAsync(other, Manual("ann@example.com", other.Clock.GetUtcNow()));
        Assert.NotEqual(await Store(app).SuppressionsVersionAsync(), await Store(other).SuppressionsVersionAsync());
        Assert.Equal(await Store(app).SuppressionsVersionAsync(), await Store(app).SuppressionsVersionAsync());
    }

    [Fact]
    public async Task Somebody_forgotten_is_nowhere_in_the_database_and_still_suppressed_and_others_are_as_before() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, Hook);
        string own = app.Sns.Bounce(Jane),
            both = app.Sns.Signed(FakeSns.SesComplaint(["Jane Doe <JANE@example.com>", Joe], "0100019a00000001-mail"));
        foreach (string body in (string[])[own, both,
            app.Sns.Bounce("ejane@example.com", "0100019a00000002-mail"),
            app.Sns.Signed(FakeSns.SesDelivery(Jane, "0100019a00000003-mail")),
            app.Sns.Signed("Dear jane@example.com, this is no event"),
            app.Sns.Signed(FakeSns.SesBounce([Joe], "0100019a00000004-mail")
                .Replace("user unknown", "forwarded to <jane@example.com>", StringComparison.Ordinal))])
            Assert.Equal(200, (await app.PostAsync(body)).Status);
        string version = await Store(app).SuppressionsVersionAsync();

        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));

        string dump = await DumpAsync(database);
        Assert.DoesNotMatch("(?i)(?<!e)jane@example.com", dump);
        Assert.Contains("ejane@example.com", dump, StringComparison.Ordinal);
        Assert.Empty(await app.HistoryAsync(Jane));
        Assert.Equal(2, (await app.HistoryAsync(Joe)).Length);
        var (status, known) = await app.GetAsync("/suppressed/" + Jane);
        Assert.Equal((200, "complaint"), (status, known.GetProperty("reason").GetString()));
        Assert.Equal([Joe, "ejane@example.com"], (await SuppressionsAsync(app)).OrderDescending());
        Assert.NotEqual(version, await Store(app).SuppressionsVersionAsync());
        Assert.Equal(3, (await Store(app).StateAsync()).Suppressed);
        // A retry of what was forgotten brings nobody back, and what is new is judged under the hash.
        foreach (string body in (string[])[own, both]) Assert.Equal(200, (await app.PostAsync(body)).Status);
        Assert.Empty(await app.HistoryAsync(Jane));
        Assert.DoesNotMatch("(?i)(?<!e)jane@example.com", await DumpAsync(database));
        await CommitAsync(app, new Entry(app.Clock.GetUtcNow(), Lift: new(Jane)));
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync("nobody@example.com"));
        Assert.Equal(["1"], await PostgresCluster.QueryAsync(database, "select count(*) from suppressions where email like 'forgotten:%'"));
    }

    [Fact]
    public async Task Somebody_forgotten_is_in_no_text_of_anybody_else_however_it_is_spelled_there() {
        const string person = "jane.doe+news@m\u00fcnchen.example";
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, "Suppression:SoftBounceLimit=1");
        string Said(string sesEvent, string from, string to) => app.Sns.Signed(sesEvent.Replace(from, to, StringComparison.Ordinal));
        string Joes(int mail, string from, string to) => Said(FakeSns.SesBounce([Joe], $"mail-{mail}"), from, to);
        string escaped = string.Concat(person.Select(each => $"\\u{(int)each:x4}"));
        string[] bodies = [
            app.Sns.Signed(FakeSns.SesBounce([$"Jane <{person}>"])),
            Joes(1, "Your offers",
                "For Jane.Doe+News@M\u00dcNCHEN.example, janexdoe+news@m\u00fcnchen.example, mary.jane.doe+news@m\u00fcnchen.example"),
            Joes(2, "news@shop", "bounce+jane.doe+news=xn--mnchen-3ya.example@shop"),
            Joes(3, "november", person),
            Joes(4, "\"campaign\"", "\"jane.doe+news@mu\u0308nchen.example\""),
            Joes(5, "\"commonHeaders\"",
                "\"headers\":[{\"name\":\"X\",\"value\":\"u?e%3Djane.doe%2Bnews%40xn--mnchen-3ya.example\"}],\"commonHeaders\""),
            Joes(6, "5.1.1 user unknown", $"forwarded to <{escaped}>"),
            Joes(7, "\"joe@example.com\"", $"\"\\\"{person}\\\" <joe@example.com>\""),
            Joes(8, "\"source\"", $"\"first\":1,\"first\":\"{person}\",\"source\""),
            Said(FakeSns.SesBounce(["ann@example.com"], "mail-9", "Transient", "MailboxFull"), "user unknown", person),
            Said(FakeSns.SesComplaint(["eve@example.com"], "mail-10"), "Your offers", person),
            Said(FakeSns.SesDelivery("eve@example.com", "mail-11"), "2.0.0 OK", person),
            app.Sns.Signed($"{{\"to\":\"{escaped}\"}}")];
        foreach (string body in bodies) Assert.Equal(200, (await app.PostAsync(body)).Status);
        await CommitAsync(app, Manual("max@example.com", app.Clock.GetUtcNow(), $"the same as {person}, says he"));
        string version = await Store(app).SuppressionsVersionAsync();
        string[] joes = [.. (await app.HistoryAsync(Joe)).Select(each => each.GetProperty("id").GetString()!)];

        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Address.Key(person)));

        string dump = (await DumpAsync(database)).Replace("mary.jane.doe", "mary", StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotMatch(@"(?i)jane\.doe|u006a|\bjane\b", dump);
        Assert.Contains("For forgotten, janexdoe+news@m\u00fcnchen.example, mary+news@m\u00fcnchen.example", dump, StringComparison.Ordinal);
        Assert.Equal(joes, (await app.HistoryAsync(Joe)).Select(each => each.GetProperty("id").GetString()));
        Assert.NotEqual(version, await Store(app).SuppressionsVersionAsync());
        var known = await Store(app).FindAsync([Joe, "ann@example.com", "eve@example.com", "max@example.com", Address.Key(person)]);
        Assert.Equal(["bounce", "soft-bounces", "complaint", "manual", "bounce"], known!.Select(each => each.Reason));
        Assert.Equal("the same as forgotten, says he", known![3].Note);
        string history = (await app.GetAsync("/history/" + Joe)).Json.GetRawText();
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Address.Key(person)));
        Assert.Equal(history, (await app.GetAsync("/history/" + Joe)).Json.GetRawText());
    }

    [Fact]
    public async Task What_could_not_be_forgotten_is_when_it_is_asked_again_even_of_somebody_not_suppressed() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, "Suppression:SoftBounceLimit=3");
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane)));
        await RefuseAsync(database, "53100", "update on entries for each row");
        async Task<int> ForgetAsync() {
            using var response = await app.Private.DeleteAsync("/history/" + Jane, TestContext.Current.CancellationToken);
            return (int)response.StatusCode;
        }
        Assert.Equal(503, await ForgetAsync());
        await PostgresCluster.ExecuteAsync(database, "drop trigger refuse on entries");

        Assert.Equal(204, await ForgetAsync());

        Assert.DoesNotContain(Jane, await DumpAsync(database), StringComparison.Ordinal);
        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database, "select count(*) from suppressions"));
        Assert.Equal(404, await ForgetAsync());
    }

    [Fact]
    public async Task Without_its_old_entry_a_retry_is_known_by_its_events_and_of_somebody_forgotten_it_is_news() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, "Suppression:SoftBounceLimit=2");
        string[] bodies = [app.Sns.Bounce(Joe), app.Sns.Signed(FakeSns.SesDelivery(Joe)), app.Sns.Bounce("ann@example.com", "mail-2", "Transient"),
            app.Sns.Signed("The shop is back"), app.Sns.Signed(FakeSns.SesComplaint([Jane, Joe], "mail-3"))];
        async Task<string[]> PostAllAsync() {
            foreach (string body in bodies) Assert.Equal(200, (await app.PostAsync(body)).Status);
            return [.. await PostgresCluster.QueryAsync(database, "select key, sum(n)::bigint from daily group by key order by key"),
                .. await PostgresCluster.QueryAsync(database, "select count(*), (select sum(n) from totals where name = 'suppressed') from unread")];
        }
        Task DeleteAsync() => PostgresCluster.ExecuteAsync(database, "delete from entries where at < timestamptz '2027-01-01'");
        string[] counts = await PostAllAsync();
        Assert.Equal("1 2", counts[^1]);
        await DeleteAsync();
        Assert.Equal(counts, await PostAllAsync());
        Assert.Equal(404, await app.StatusAsync("/suppressed/ann@example.com"));
        Assert.Equal(["5"], await PostgresCluster.QueryAsync(database, "select count(*) from entries"));

        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        Assert.Equal(counts, await PostAllAsync());
        Assert.Empty(await app.HistoryAsync(Jane));
        await DeleteAsync();
        string[] more = Array.ConvertAll(counts, line => line.Replace("Complaint|abuse| 2", "Complaint|abuse| 3", StringComparison.Ordinal));
        Assert.NotEqual(counts, more);
        Assert.Equal(more, await PostAllAsync());

        Assert.Equal("mail-3", Assert.Single(await app.HistoryAsync(Jane)).GetProperty("mailId").GetString());
        Assert.Equal([Joe], await SuppressionsAsync(app));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        Assert.DoesNotContain(Jane, await DumpAsync(database), StringComparison.Ordinal);
    }

    /// <summary>A server that refuses something, by an error of its own, until the trigger `refuse` is dropped.</summary>
    static Task RefuseAsync(string database, string code, string what) => PostgresCluster.ExecuteAsync(database, $"""
        create function refuse() returns trigger language plpgsql as 'begin raise exception using errcode = ''{code}''; end';
        create trigger refuse before {what} execute function refuse();
        """);

    /// <summary>All that lies in the database, a row a line.</summary>
    static async Task<string> DumpAsync(string database) {
        string[] tables = await PostgresCluster.QueryAsync(database,
            "select tablename from pg_tables where schemaname = 'public' order by 1");
        Assert.Contains("entries", tables);
        var rows = new List<string>();
        foreach (string table in tables)
            rows.AddRange(await PostgresCluster.QueryAsync(database, $"select row_to_json(t)::text from {table} as t"));
        return string.Join('\n', rows);
    }

    /// <summary>Another's transaction: its first statement, and the rest once a receiver waits for it, by so many connections.</summary>
    internal static async Task WhileOneWaitsAsync(string database, string first, Func<Task> receiver, string then, bool commits, int count = 1,
        Func<Task>? meanwhile = null) {
        await using var other = new NpgsqlConnection(database + ";Pooling=false");
        await other.OpenAsync(TestContext.Current.CancellationToken);
        async Task RunAsync(string sql) {
            await using var command = new NpgsqlCommand(sql, other);
            await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        }
        await RunAsync("begin; set local deadlock_timeout = '1ms'; " + first);
        var waiting = receiver();
        await Eventually.TrueAsync(async () => (await PostgresCluster.QueryAsync(database,
            "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")).Length == count);
        await (meanwhile?.Invoke() ?? Task.CompletedTask);
        await RunAsync(then);
        await RunAsync(commits ? "commit" : "rollback");
        await waiting;
    }

    [Theory]
    [InlineData("entries", true)]
    [InlineData("email_bounces", true)]
    [InlineData("suppressions", true)]
    [InlineData("suppressions", false)]
    [InlineData("daily", true)]
    [InlineData("hourly", false)]
    public async Task Whoever_waits_for_the_first_row_of_a_table_holds_none_of_the_others_and_of_no_later_table(string table, bool new_) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        string[] bodies = [.. Enumerable.Range(0, 12).Select(number =>
            app.Sns.Bounce($"a{number}@example.com", $"mail-{number}", "Permanent", "Sub" + number, $"2026-11-24T{number:00}:00:00Z"))];
        foreach (string body in bodies.Reverse()) Assert.Equal(200, (await app.PostAsync(body)).Status);
        var entries = await EntriesAsync(database, "id desc");
        string key = table switch { "suppressions" => "email", "daily" or "hourly" => "key", _ => "id" };
        string[] later = [.. ((string[])["entries", "email_bounces", "suppressions", "daily", "hourly", "totals"]).SkipWhile(each => each != table).Skip(1)];
        await PostgresCluster.ExecuteAsync(database, $"""
            create table saved as select * from {table};
            {string.Concat(later.Select(each => $"create table saved_{each} as select * from {each}; delete from {each};"))}
            delete from entries; delete from email_bounces; delete from email_complaints; {(new_ ? $"delete from {table};" : "")}
            {(table is "daily" or "hourly" ? "delete from suppressions" : "")}
            """);
        string first = $"(select {key} from saved order by {key} limit 1)";

        await WhileOneWaitsAsync(database,
            new_ ? $"insert into {table} select * from saved where {key} = {first}" : $"select from {table} where {key} = {first} for update",
            async () => Assert.Equal(Commit.Kept, await app.Services.GetRequiredService<PostgresStore>().KeepAsync(entries)),
            (new_ ? $"insert into {table} select * from saved where {key} <> {first}" : $"select from {table} for update")
                + string.Concat(later.Select(each => $"; insert into {each} select * from saved_{each}")), commits: false);
    }

    [Fact]
    public async Task What_comes_while_its_person_is_forgotten_is_judged_under_the_hash() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        string alias = app.Services.GetRequiredService<PostgresStore>().Alias(Jane), condition = $"from suppressions where email = '{Jane}'";

        await WhileOneWaitsAsync(database, $"select {condition} for update",
            async () => Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], "mail-2")))).Status),
            $"insert into suppressions select '{alias}', reason, since, known {condition}; delete {condition}", commits: true);

        Assert.Equal("complaint", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());
        Assert.Equal([alias + " complaint"], await PostgresCluster.QueryAsync(database, "select email, reason from suppressions"));
        Assert.DoesNotContain("cannot be used", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_new_is_kept_in_one_round_trip_and_after_what_was_not_it_is_asked_a_hundred_times_before() {
        string database = await cluster.NewDatabaseAsync(), name = new NpgsqlConnectionStringBuilder(database).Database!;
        await using var app = await StartAsync(database);
        int trips = 0;
        using var listener = new ActivityListener {
            ShouldListenTo = source => source.Name == "Npgsql",
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = trip => trips += trip.TagObjects.Any(tag => name.Equals(tag.Value)) ? 1 : 0,
        };
        await app.PostAsync(app.Sns.Bounce(Joe)); // connects
        await Eventually.TrueAsync(async () => (await app.Private.GetStringAsync("/metrics", TestContext.Current.CancellationToken))
            .Contains("\nfeedback_receiver_suppressions", StringComparison.Ordinal)); // the first look of the metrics is over
        ActivitySource.AddActivityListener(listener);
        async Task<int> TripsOfAsync(string message) {
            trips = 0;
            Assert.Equal(200, (await app.PostAsync(message)).Status);
            return trips;
        }
        string bounce = app.Sns.Bounce(Jane, "mail-2");

        Assert.Equal(1, await TripsOfAsync(bounce));
        Assert.Equal(3, await TripsOfAsync(bounce));
        for (int i = 0; i < 100; i++) Assert.Equal(2, await TripsOfAsync(app.Sns.Bounce($"a{i}@example.com", $"mail-a{i}")));
        Assert.Equal(1, await TripsOfAsync(app.Sns.Bounce("b@example.com", "mail-b")));
        Assert.Equal(["103"], await PostgresCluster.QueryAsync(database, "select sum(n) from daily"));
    }

    // Three addresses that nobody has heard of, in up to eight entries: some twice, some that tell of the same event as another.
    static Entry[] NewBatch(Random random, string batch, DateTimeOffset at) {
        string Address() => $"{batch}-{random.Next(3)}@example.com";
        string MailId() => $"mail-{random.Next(4)}";
        Entry Message(string message) => new(at, new(Envelope.Notification, $"{batch}-{random.Next(1000)}", FakeSns.TopicArn, message,
            "2026-11-24T08:00:00.123Z", "2", "signature", "https://sns.us-east-1.amazonaws.com/x.pem"));
        Entry Any() => random.Next(9) switch {
            0 => Manual(Address(), at, "note"),
            1 => new(at, Lift: new(Address())),
            2 => Message("no JSON"),
            3 => Message(FakeSns.SesComplaint([Address(), Address()], MailId())),
            4 => Message(FakeSns.SesDelivery(Address(), MailId())),
            5 or 6 => Message(FakeSns.SesBounce([Address()], MailId(), "Transient")),
            _ => Message(FakeSns.SesBounce([Address()], MailId(), format: random.Next(2) == 0 ? "eventType" : "notificationType")),
        };
        Entry[] entries = [.. Enumerable.Range(0, random.Next(1, 8)).Select(_ => Any())];
        return random.Next(3) == 0 ? [.. entries, entries[0]] : entries;
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    public async Task Whether_it_was_guessed_or_asked_the_same_stands_in_every_table(int softBounceLimit) {
        string[] databases = [await cluster.NewDatabaseAsync(), await cluster.NewDatabaseAsync()];
        string[] rows = ["entries", "email_bounces", "email_complaints", "email_events", "suppressions", "unread", "subscriptions", "changes"];
        (string Name, string Key)[] sums = [("daily", "key"), ("hourly", "key"), ("totals", "name")];
        var stands = new List<string[]>();
        foreach (string database in databases) {
            await using var app = await StartAsync(database, [.. Hook, "Suppression:SoftBounceLimit=" + softBounceLimit]);
            var store = app.Services.GetRequiredService<PostgresStore>();
            var (random, first) = (new Random(softBounceLimit), store.Prepare(Manual(Jane, app.Clock.GetUtcNow())));
            // What came before: then it is asked for a hundred batches.
            foreach (var entry in database == databases[0] ? (PreparedEntry[])[first] : [first, first])
                Assert.Equal(Commit.Kept, await store.KeepAsync([entry]));
            for (int i = 0; i < 60; i++, app.Clock.Advance(TimeSpan.FromSeconds(0.4)))
                Assert.Equal(Commit.Kept, await store.KeepAsync([.. NewBatch(random, $"b{i}", app.Clock.GetUtcNow()).Select(store.Prepare)]));
            stands.Add(await PostgresCluster.QueryAsync(database, string.Join(" union all ", [
                .. rows.Select(table => $"select concat_ws(' ', '{table}', to_jsonb(row)) as line from {table} as row"),
                .. sums.Select(table => $"select concat_ws(' ', '{table.Name}', {table.Key}, sum(n)) from {table.Name} group by {table.Key}"),
            ]) + " order by line"));
        }
        Assert.Equal(stands[0], stands[1]);
        Assert.All([.. rows, .. sums.Select(table => table.Name)],
            table => Assert.Contains(stands[0], line => line.StartsWith(table + " ", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task More_than_one_statement_takes_is_kept_and_counted_once(bool asked) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        var store = app.Services.GetRequiredService<PostgresStore>();
        PreparedEntry[] all = [.. Enumerable.Range(0, 150).Select(number => store.Prepare(new(app.Clock.GetUtcNow(), new(Envelope.Notification,
            $"{number}", FakeSns.TopicArn, FakeSns.SesBounce([$"a{number}@example.com", $"b{number}@example.com"], $"mail-{number}"),
            "2026-11-24T08:00:00.123Z", "2", "signature", "https://sns.us-east-1.amazonaws.com/x.pem"))))];
        if (asked) // what comes again is asked for, and so are a hundred batches after it
            foreach (var before in (PreparedEntry[][])[all[40..110], all[40..41]]) Assert.Equal(Commit.Kept, await store.KeepAsync(before));

        Assert.Equal(Commit.Kept, await store.KeepAsync(all));

        Assert.Equal([$"150 entries, {(asked ? 2 : 1)} transactions, 300 counted, 300 bounces"], await PostgresCluster.QueryAsync(database, """
            select concat((select count(entry) || ' entries, ' || count(distinct xmin::text) || ' transactions, ' from entries),
            (select sum(n) || ' counted, ' from daily), count(*) || ' bounces') from email_bounces
            where email = recipient and substr(email, 2) = substr(mail_id, 6) || '@example.com' and mail is not null
            """));
        Assert.Equal(300, (await store.StateAsync()).Suppressed);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task What_is_known_of_a_new_address_is_written_once(bool asked) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, "Suppression:SoftBounceLimit=3");
        string bounce = app.Sns.Bounce(Joe);
        foreach (string message in asked ? (string[])[bounce, bounce] : [bounce]) await app.PostAsync(message);

        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane, "mail-2")));
        await app.PostAsync(app.Sns.Bounce("soft@example.com", "mail-3", "Transient"));

        Assert.Equal([$"{Joe} (0,1)", $"{Jane} (0,2)", "soft@example.com (0,3)"], // where in the table: each writing takes the next place
            await PostgresCluster.QueryAsync(database, "select email, ctid::text from suppressions order by ctid"));
    }

    [Fact]
    public async Task What_was_guessed_wrong_has_PostgreSQL_log_no_address() {
        await using var own = new PostgresCluster();
        await using var app = await StartAsync(await own.NewDatabaseAsync());

        await app.PostAsync(app.Sns.Bounce(Jane, "mail-1"));
        await app.PostAsync(app.Sns.Bounce(Jane, "mail-2"));

        await Eventually.TrueAsync(() => own.Log.Any(line => line.Contains("STATEMENT:  ", StringComparison.Ordinal)));
        Assert.DoesNotContain(own.Log, line => line.Contains(Jane, StringComparison.OrdinalIgnoreCase));
    }

    [Fact]
    public async Task What_was_guessed_wrong_after_a_long_wait_is_not_waited_for_again_but_kept_when_it_comes_again() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        var store = app.Services.GetRequiredService<PostgresStore>();
        var entry = store.Prepare(Manual(Jane, app.Clock.GetUtcNow()));
        await using var other = new NpgsqlConnection(database + ";Pooling=false");
        await other.OpenAsync(TestContext.Current.CancellationToken);
        async Task OtherAsync(string sql) => await PostgresStore.ReadAsync(other, sql, _ => 0, []);
        await OtherAsync("begin");
        await OtherAsync($"insert into entries (id, at) values ('{entry.Id}', now())");

        var commit = store.KeepAsync([entry]);
        await OtherAsync("select pg_sleep(2.1)");
        await OtherAsync("commit");

        Assert.Equal(Commit.Busy, await commit);
        Assert.Equal(Commit.Kept, await store.KeepAsync([entry]));
    }

    [Fact]
    public async Task What_is_known_of_an_address_comes_only_from_what_is_new_though_its_row_was_gone() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        string complaint = app.Sns.Signed(FakeSns.SesComplaint([Joe])), bounce = app.Sns.Bounce(Jane);
        foreach (string message in (string[])[complaint, bounce]) Assert.Equal(200, (await app.PostAsync(message)).Status);
        var again = await EntriesAsync(database, "at");
        await PostgresCluster.ExecuteAsync(database, "delete from suppressions");

        Assert.Equal(Commit.Kept, await app.Services.GetRequiredService<PostgresStore>()
            .KeepAsync([.. again, PreparedEntry.Of(Manual(Joe, app.Clock.GetUtcNow()))]));

        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
        Assert.Equal("manual", (await app.GetAsync("/suppressed/" + Joe)).Json.GetProperty("reason").GetString());
        Assert.Equal([Joe + " manual"], await PostgresCluster.QueryAsync(database, "select email, reason from suppressions"));
        Assert.Equal(["3"], await PostgresCluster.QueryAsync(database, "select sum(n) from totals where name = 'suppressed'"));
    }

    [Fact]
    public async Task A_retry_after_its_person_was_forgotten_leaves_no_row_under_the_name() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        string bounce = app.Sns.Bounce(Jane);
        await app.PostAsync(bounce);
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        foreach (string message in (string[])[bounce, app.Sns.Bounce(Jane, "mail-2")])
            Assert.Equal(200, (await app.PostAsync(message)).Status);
        Assert.Equal([app.Services.GetRequiredService<PostgresStore>().Alias(Jane)],
            await PostgresCluster.QueryAsync(database, "select email from suppressions"));
    }

    [Fact]
    public async Task After_a_restart_of_the_server_nobody_is_told_of_the_dead_connections() {
        await using var own = new PostgresCluster();
        string database = await own.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        Func<Task<int>>[] asks = [async () => (await app.PostAsync(app.Sns.Bounce(Jane))).Status, () => app.StatusAsync("/suppressed/" + Jane)];
        foreach (var ask in asks) {
            // Eight connections at once, all of which are idle afterwards.
            await WhileOneWaitsAsync(database, "lock table email_bounces",
                () => Task.WhenAll(Enumerable.Range(0, 8).Select(_ => app.HistoryAsync(Jane))), "select 1", commits: false, count: 8);
            await own.StopAsync(immediate: false);
            await own.StartAsync();
            Assert.Equal(200, await ask());
        }
        Assert.DoesNotContain("cannot be used", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_PostgreSQL_will_not_have_in_any_form_is_not_acknowledged_and_what_came_with_it_is_kept() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await RefuseAsync(database, "22000", "insert on entries for each row when (new.entry like '%poison%')");
        string bad = app.Sns.Bounce("poison@example.com", "mail-1"), good = app.Sns.Bounce(Jane);
        Assert.Equal((503, 200), ((await app.PostAsync(bad)).Status, (await app.PostAsync(good)).Status));
        PreparedEntry[] both = [PreparedEntry.Of(Manual("poison@example.com", app.Clock.GetUtcNow())),
            PreparedEntry.Of(Manual(Joe, app.Clock.GetUtcNow()))];
        Assert.Equal(Commit.Unwritable, await app.Services.GetRequiredService<PostgresStore>().KeepAsync(both));
        Assert.Equal([Jane, Joe], (await SuppressionsAsync(app)).Order());
        await PostgresCluster.ExecuteAsync(database, "drop trigger refuse on entries");
        Assert.Equal(200, (await app.PostAsync(bad)).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/poison@example.com"));
    }

    [Theory]
    [InlineData("22P02", true)]
    [InlineData("22003", false)]
    [InlineData("54001", true)]
    public async Task What_PostgreSQL_refuses_is_kept_as_text_else_as_unread(string code, bool keepsMessages) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, $"Postgres:KeepMessages={keepsMessages}");
        await RefuseAsync(database, code,
            $"insert on email_bounces for each row when (jsonb_typeof(new.mail) = 'object' or new.email = '{Joe}')");
        foreach (string address in (string[])[Jane, Joe]) Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(address, address))).Status);
        Assert.Equal([Jane + " string"], await PostgresCluster.QueryAsync(database, "select email, jsonb_typeof(mail) from email_bounces"));
        Assert.Equal([$"PostgreSQL cannot hold it ({code})"], await PostgresCluster.QueryAsync(database,
            "select why from unread join entries using (id) where entry like '%Signature%'"));
        Assert.Equal([Jane], await SuppressionsAsync(app));
    }

    [Fact]
    public async Task What_violates_a_constraint_is_not_acknowledged_until_somebody_has_mended_the_tables() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, Hook);
        for (int number = 0; number < 9; number++) // more than there are attempts
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce($"a{number}@example.com", $"mail-{number}"))).Status);
        Task RestartAtAsync(int number) => PostgresCluster.ExecuteAsync(database, $"alter table changes alter number restart with {number}");
        await RestartAtAsync(1); // as after a restore
        string bounce = app.Sns.Bounce(Jane);
        Assert.Equal(503, (await app.PostAsync(bounce)).Status);
        await RestartAtAsync(100);
        Assert.Equal(200, (await app.PostAsync(bounce)).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database, "select count(*) from unread"));
    }

    [Fact]
    public async Task A_giant_is_kept_at_once_with_its_mail_beside_the_first_of_its_events() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        async Task PostAsync(string mail, string subject) {
            string[] all = [.. Enumerable.Range(0, 50).Select(number => $"{mail}{number}@example.com")];
            Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(all, mail).Replace("Your offers", subject, StringComparison.Ordinal)))).Status);
            foreach (string address in (string[])[all[0], all[^1]]) Assert.Equal(200, await app.StatusAsync("/suppressed/" + address));
        }
        await PostAsync("large", new('x', 230_000)); // as SNS may send it
        byte[] random = new byte[475_000];
        Random.Shared.NextBytes(random);
        await PostAsync("vast", Convert.ToHexStringLower(random));
        Assert.Equal(["large 50 50 50", "vast 50 1 1"], await PostgresCluster.QueryAsync(database,
            "select mail_id, count(*), count(mail), count(subject) from email_bounces group by 1 order by 1"));
        Assert.Equal(["2 0"], await PostgresCluster.QueryAsync(database, "select count(entry), (select count(*) from unread) from entries"));
    }

    [Fact]
    public async Task When_too_much_waits_that_is_said_and_nothing_of_what_waits_is_lost() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        Task<Commit>[] waiting = [];
        await WhileOneWaitsAsync(database, "lock table entries", () => {
            waiting = [.. Enumerable.Range(0, 12_000).Select(number => Store(app).CommitAsync(Manual(Joe, app.Clock.GetUtcNow(), $"{number}")))];
            return Task.CompletedTask;
        }, "select 1", commits: false, meanwhile: async () =>
            Assert.Equal((503, "too much is waiting"), await app.PostAsync(app.Sns.Bounce(Jane))));

        var commits = await Task.WhenAll(waiting);

        Assert.InRange(commits.Count(commit => commit == Commit.Kept), 10_000, 11_000);
        Assert.DoesNotContain(Commit.Unwritable, commits);
        Assert.Equal([$"{commits.Count(commit => commit == Commit.Kept)}"],
            await PostgresCluster.QueryAsync(database, "select count(*) from entries"));
        await app.StopAsync();
        Assert.Equal(Commit.Unwritable, await Store(app).CommitAsync(Manual(Jane, app.Clock.GetUtcNow())));
    }

    [Fact]
    public async Task A_server_without_fsync_is_reported() {
        await using var own = new PostgresCluster { Fsync = "off" };
        await using var app = await StartAsync(await own.NewDatabaseAsync());
        Assert.StartsWith("fsync is off", Assert.Single((await Store(app).StateAsync()).Findings), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_jsonb_and_text_cannot_hold_is_replaced_and_the_rest_stays_JSON() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce([Jane]).Replace("november", @"nov\u0000ember \ud83d\ude00 \\u0000", StringComparison.Ordinal)));
        Assert.Equal(["object nov\ufffdember \ud83d\ude00 \\u0000"], await PostgresCluster.QueryAsync(database,
            "select jsonb_typeof(mail), tags -> 'campaign' ->> 0 from email_bounces"));
        await CommitAsync(app, Manual("half\ud83d@example.com", app.Clock.GetUtcNow(), "half \ud83d"));
        var known = await Store(app).FindAsync(["half\ud83d@example.com"]);
        Assert.Equal("half \ufffd", Assert.Single(known!).Note);
    }

    static string WithIn(string sesEvent, string value) => sesEvent.Replace("\"commonHeaders\"", $"\"x\":{value},\"commonHeaders\"", StringComparison.Ordinal)
        .Replace("[\"november\"]", value, StringComparison.Ordinal);

    [Theory]
    [InlineData("1e131071", """
        "1e131071"
        """)]
    [InlineData("[-1.5E+400, 1e-16383,0.25e0999]", """
        ["-1.5E+400", "1e-16383","0.25e0999"]
        """)]
    [InlineData("""{"a":1e99,"b":[-0.5E-12,2E+07],"c":"0100018e1234-e123"}""", null)]
    [InlineData("""
        [": 1e999","\": 1e999",{", 1e999":1e131071},"\\",1e131071,"\\\": 1e999, "]
        """, """
        [": 1e999","\": 1e999",{", 1e999":"1e131071"},"\\","1e131071","\\\": 1e999, "]
        """)]
    public void A_number_of_a_vast_exponent_becomes_a_string_in_mail_and_tags_and_nothing_else_there_changes(string said, string? kept) {
        var entry = new Entry(default, new(Envelope.Notification, "id", FakeSns.TopicArn, WithIn(FakeSns.SesBounce([Jane]), said), "", "2", "", ""));
        var (before, after) = (entry.Event.Feedback[0], PreparedEntry.Of(entry).Events[0].Feedback);
        Assert.Contains($"\"x\":{said},", before.Mail, StringComparison.Ordinal);
        Assert.Equal(before.Mail!.Replace(said, kept ?? said, StringComparison.Ordinal), after.Mail);
        Assert.Equal(before.Tags!.Replace(said, kept ?? said, StringComparison.Ordinal), after.Tags);
    }

    [Fact]
    public void A_number_of_a_million_digits_beside_a_vast_one_takes_no_minute() {
        string digits = new('9', 1_000_000);
        var entry = new Entry(default, new(Envelope.Notification, "id", FakeSns.TopicArn, WithIn(FakeSns.SesBounce([Jane]), $"[{digits},1e999]"), "", "2", "", ""));
        var clock = Stopwatch.StartNew();
        Assert.Contains($"[{digits},\"1e999\"]", PreparedEntry.Of(entry).Events[0].Feedback.Mail, StringComparison.Ordinal);
        Assert.InRange(clock.Elapsed.TotalSeconds, 0, 10);
    }

    [Fact]
    public async Task What_PostgreSQL_would_print_with_all_its_noughts_is_stored_and_told_as_short_as_it_was_said() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Signed(WithIn(FakeSns.SesBounce([Jane]), "[1e131071,-1.5E+400,1e-16383]")));
        await app.PostAsync(app.Sns.Bounce(Joe, "mail-2"));

        Assert.Equal(["""["1e131071", "-1.5E+400", "1e-16383"] Your offers True"""], await PostgresCluster.QueryAsync(database, $"""
            select tags -> 'campaign', mail -> 'commonHeaders' ->> 'subject', length(mail::text) < 1000 and mail -> 'x' = tags -> 'campaign'
            from email_bounces where email = '{Jane}'
            """));
        foreach (string path in (string[])["/history/" + Jane, "/bounces"]) Assert.Equal(200, await app.StatusAsync(path));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Joe));
        Assert.Single(await app.HistoryAsync(Jane));
    }

    [Fact]
    public async Task A_topic_is_written_once_a_second_but_a_confirmation_or_its_end_at_once() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        async Task<string> RowAfterAsync(string body) {
            Assert.Equal(200, (await app.PostAsync(body)).Status);
            return Assert.Single(await PostgresCluster.QueryAsync(database, "select xmin, unsubscribed_at is not null from subscriptions"));
        }
        string first = await RowAfterAsync(app.Sns.Bounce(Jane));
        Assert.Equal(first, await RowAfterAsync(app.Sns.Bounce(Joe)));
        app.Clock.Advance(TimeSpan.FromSeconds(0.999));
        Assert.Equal(first, await RowAfterAsync(app.Sns.Bounce(Joe, "mail-2")));
        app.Clock.Advance(TimeSpan.FromSeconds(0.001));
        string second = await RowAfterAsync(app.Sns.Bounce(Joe, "mail-3"));
        Assert.NotEqual(first, second);
        Assert.EndsWith("False", second, StringComparison.Ordinal);
        Assert.EndsWith("True", await RowAfterAsync(app.Sns.Sign(app.Sns.Confirmation("UnsubscribeConfirmation"))), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Changes_are_told_in_order_until_they_are_dropped_by_one_receiver_at_a_time() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, Hook);
        Assert.Empty(await Store(app).ChangesAsync(10));
        await app.PostAsync(app.Sns.Bounce(Jane));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane])));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], "another-mail")));
        await CommitAsync(app, new Entry(app.Clock.GetUtcNow(), Lift: new(Jane)));

        var changes = await Store(app).ChangesAsync(10);

        Assert.Equal([(Jane, null, "bounce"), (Jane, "bounce", "complaint"), (Jane, "complaint", null)],
            changes.Select(each => (each.Address, each.Before, each.Reason)));
        Assert.Equal($"0100019a00000000-mail/bounce/Permanent/{Jane}", changes[0].Event);
        Assert.Equal(changes.Take(2), await Store(app).ChangesAsync(2));
        await using (var other = await StartAsync(database, Hook))
            Assert.Empty(await Store(other).ChangesAsync(10));
        await Store(app).ChangesAsync(10);
        await Store(app).DropChangesAsync(changes[1].Number);
        Assert.Equal([changes[2]], await Store(app).ChangesAsync(10));
        await app.StopAsync();
        await using var next = await StartAsync(database, Hook);
        Assert.Equal([changes[2]], await Store(next).ChangesAsync(10));
    }

    [Fact]
    public async Task A_receiver_that_cannot_read_the_changes_lets_another_tell_of_them() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, Hook);
        await using var other = await StartAsync(database, Hook);
        await CommitAsync(app, Manual(Jane, app.Clock.GetUtcNow()));
        Assert.Single(await Store(app).ChangesAsync(10));

        await PostgresCluster.ExecuteAsync(database, "alter table changes rename to away");
        await Assert.ThrowsAsync<Unavailable>(() => Store(app).ChangesAsync(10));
        await PostgresCluster.ExecuteAsync(database, "alter table away rename to changes");

        IReadOnlyList<Change> told = [];
        for (int tries = 0; told.Count == 0 && tries < 5_000; tries++) // until the server has seen that connection end
            told = await Store(other).ChangesAsync(10);
        Assert.Single(told);
        Assert.Empty(await Store(app).ChangesAsync(10));
    }

    [Fact]
    public async Task Receivers_in_two_schemas_of_one_database_tell_each_of_its_own() {
        string database = await cluster.NewDatabaseAsync();
        await PostgresCluster.ExecuteAsync(database, "create schema one; create schema two");
        await using var one = await StartAsync(database + ";Search Path=one", Hook);
        await using var two = await StartAsync(database + ";Search Path=two", Hook);
        await CommitAsync(one, Manual(Jane, one.Clock.GetUtcNow()));
        await CommitAsync(two, Manual(Joe, two.Clock.GetUtcNow()));
        Assert.Equal(Jane, Assert.Single(await Store(one).ChangesAsync(10)).Address);
        Assert.Equal(Joe, Assert.Single(await Store(two).ChangesAsync(10)).Address);
    }

    [Fact]
    public async Task A_change_that_becomes_visible_late_is_not_dropped_unheard() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, Hook);
        await CommitAsync(app, Manual(Jane, app.Clock.GetUtcNow()));
        var told = Assert.Single(await Store(app).ChangesAsync(10));
        await PostgresCluster.ExecuteAsync(database,
            "insert into changes (number, address, at) overriding system value values (0, 'late@example.com', now())");
        await Store(app).DropChangesAsync(told.Number);
        Assert.Equal("late@example.com", Assert.Single(await Store(app).ChangesAsync(10)).Address);
    }

    [Fact]
    public async Task A_page_of_events_holds_of_a_mail_only_when_it_was_sent() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await CommitAsync(app, Manual(Jane, app.Clock.GetUtcNow().AddYears(-1)));
        foreach (string mail in (string[])["mail-1", "mail-2", "mail-3"])
            Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], mail)))).Status);
        await PostgresCluster.ExecuteAsync(database, """
            update email_complaints set mail = to_jsonb(mail::text) where mail_id = 'mail-2';
            update email_complaints set mail = null where mail_id = 'mail-3'
            """);
        var mails = await Store(app).EventsAsync(new(Address: Jane), TestContext.Current.CancellationToken)
            .Select(each => (each.Feedback.MailId, each.Feedback.Mail)).OrderBy(each => each.MailId).ToListAsync(TestContext.Current.CancellationToken);
        Assert.Equal(("mail-3", null), mails[2]);
        Assert.Matches("""^\{"timestamp": "2026-[^"]+"\}$""", mails[0].Mail);
        Assert.Equal("""{"timestamp": null}""", mails[1].Mail);
        var row = Assert.Single((await app.GetAsync("/stats?by=prevented")).Json.GetProperty("rows").EnumerateArray());
        Assert.Equal(1, row.GetProperty("complaints").GetInt64());
    }

    [Fact]
    public async Task What_each_receiver_counted_in_its_own_part_is_added_up() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        await PostgresCluster.ExecuteAsync(database, """
            insert into daily select key, shard + 16, 5 from daily;
            insert into hourly select key, shard + 16, 5 from hourly;
            insert into totals select name, shard + 16, 5 from totals where name = 'suppressed';
            """);
        foreach (bool hourly in (bool[])[false, true])
            Assert.Equal([6L], (await Store(app).CountsAsync(hourly, default)).Select(count => count.Number));
        Assert.Equal(6, (await Store(app).StateAsync()).Suppressed);
    }

    [Fact]
    public async Task Without_a_hook_no_change_is_written() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database, "select count(*) from changes"));
    }

    [Fact]
    public async Task Somebody_forgotten_heard_of_again_and_forgotten_again_is_nowhere_in_the_database() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database, "Suppression:SoftBounceLimit=3");
        await app.PostAsync(app.Sns.Bounce(Jane));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        foreach (string body in (string[])[app.Sns.Signed(FakeSns.SesComplaint([Jane], "mail-2")),
            app.Sns.Signed(FakeSns.SesDelivery(Jane, "mail-3"))]) Assert.Equal(200, (await app.PostAsync(body)).Status);

        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));

        Assert.DoesNotMatch($"{Jane}|mail-[23]", await DumpAsync(database));
        var (status, known) = await app.GetAsync("/suppressed/" + Jane);
        Assert.Equal((200, "complaint"), (status, known.GetProperty("reason").GetString()));
        Assert.Equal(1, (await Store(app).StateAsync()).Suppressed);
    }

    [Fact]
    public async Task Two_people_who_are_forgotten_at_once_by_two_receivers_are_both_nowhere() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await using var other = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        await app.PostAsync(app.Sns.Bounce(Joe));
        await PostgresCluster.ExecuteAsync(database, """
            insert into unread (id, at, why, message) select gen_random_uuid(), now(), 'not JSON', 'jane@example.com and joe@example.com'
            from generate_series(1, 3000)
            """);

        Assert.Equal([Commit.Kept, Commit.Kept], await Task.WhenAll(Store(app).ForgetAsync(Jane), Store(other).ForgetAsync(Joe)));

        Assert.DoesNotMatch($"{Jane}|{Joe}", await DumpAsync(database));
        Assert.Equal(["3000"], await PostgresCluster.QueryAsync(database, "select count(*) from unread where message = 'forgotten and forgotten'"));
    }

    [Fact]
    public async Task Somebody_forgotten_is_found_in_upper_case_where_the_database_speaks_Turkish() {
        string database = await cluster.NewDatabaseAsync("template template0 locale_provider icu icu_locale 'tr'");
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce("lili@example.com"));
        await app.PostAsync(app.Sns.Signed("To LILI@EXAMPLE.COM"));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync("lili@example.com"));
        Assert.DoesNotMatch("(?i)lili", await DumpAsync(database));
    }

    [Fact]
    public async Task A_key_that_copy_brought_is_heeded_by_receivers_that_run() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
        string alias = await NewForgetKeyAsync(database, Jane);
        await PostgresCluster.ExecuteAsync(database, $$$"""insert into suppressions values ('{{{alias}}}', 'bounce', now(), '{"Reason":"bounce"}')""");

        Assert.Equal("bounce", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());

        string next = await NewForgetKeyAsync(database, Jane);
        await PostgresCluster.ExecuteAsync(database, $"update suppressions set email = '{next}'");
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane])))).Status);
        Assert.Equal([next + " complaint"], await PostgresCluster.QueryAsync(database, "select email, reason from suppressions"));
        string last = await NewForgetKeyAsync(database, Jane);
        await PostgresCluster.ExecuteAsync(database, $"update suppressions set email = '{Jane}'");
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        Assert.Equal([last + " complaint"], await PostgresCluster.QueryAsync(database, "select email, reason from suppressions"));
        Known[]?[] found = [];
        await WhileOneWaitsAsync(database, "lock table meta", // both ask under the old key, and read the new one
            async () => found = await Task.WhenAll(Enumerable.Range(0, 2).Select(_ => Store(app).FindAsync([Jane]).AsTask())),
            "update meta set value = repeat('00', 32) where name = 'forget_key'; "
                + $"update suppressions set email = '{Lines.Alias(new byte[32], Jane)}'", commits: true, count: 2);
        Assert.All(found, known => Assert.True(Assert.Single(known!).Suppressed));
        Assert.DoesNotContain("cannot be used", app.Log.Text, StringComparison.Ordinal);
    }

    /// <summary>As `copy` takes it over; and the name under which somebody is known then.</summary>
    static async Task<string> NewForgetKeyAsync(string database, string address) {
        byte[] key = System.Security.Cryptography.RandomNumberGenerator.GetBytes(32);
        await PostgresCluster.ExecuteAsync(database, $"update meta set value = '{Convert.ToHexStringLower(key)}' where name = 'forget_key'");
        return Lines.Alias(key, address);
    }

    [Theory]
    [InlineData("{}", "{\"Reason\":\"bounce\"}")]
    [InlineData("{\"Reason\":\"bounce\"}", "{}")]
    [InlineData("{\"Reason\":\"bounce\"}", "{\"Reason\":\"bounce\"}")]
    public async Task Who_is_known_by_name_and_by_hash_is_suppressed_by_either_and_lifted_of_both(string byName, string byHash) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        string alias = app.Services.GetRequiredService<PostgresStore>().Alias(Jane);
        Task BothAsync() => PostgresCluster.ExecuteAsync(database, $"""
            delete from suppressions;
            insert into suppressions select email, known::json ->> 'Reason', case when known <> '{"{}"}' then now() end, known::jsonb
            from (values ('{Jane}', '{byName}'), ('{alias}', '{byHash}')) as each (email, known);
            delete from totals; insert into totals select 'suppressed', 99, count(reason) from suppressions
            """);
        async Task AssertCountedAsync() => Assert.Equal([$"{(await Store(app).StateAsync()).Suppressed}"],
            await PostgresCluster.QueryAsync(database, "select count(reason) from suppressions"));
        await BothAsync();
        Assert.Equal("bounce", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        Assert.Equal([alias + " bounce"], await PostgresCluster.QueryAsync(database, "select email, reason from suppressions"));
        await AssertCountedAsync();
        await BothAsync();
        await CommitAsync(app, new Entry(app.Clock.GetUtcNow(), Lift: new(Jane)));
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
        await AssertCountedAsync();
        await CommitAsync(app, Manual(Jane, app.Clock.GetUtcNow()));
        Assert.Equal("manual", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());
    }

    [Fact]
    public async Task A_message_without_events_that_comes_again_is_the_same_message() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        foreach (string body in (string[])[app.Sns.Signed("not JSON"), app.Sns.Sign(app.Sns.Confirmation())])
            for (int times = 0; times < 3; times++, app.Clock.Advance(TimeSpan.FromSeconds(20)))
                Assert.Equal(200, (await app.PostAsync(body)).Status);
        Assert.Equal(["2 1"], await PostgresCluster.QueryAsync(database, "select count(*), (select count(*) from unread) from entries"));
    }

    [Fact]
    public async Task A_connection_that_the_server_ended_because_it_was_idle_is_nobodys_trouble() {
        string database = await cluster.NewDatabaseAsync(), name = database.Split('=')[^1];
        await PostgresCluster.ExecuteAsync(database, $"alter database {name} set idle_session_timeout = '500ms'");
        await using var app = await StartAsync(database);
        Func<Task<int>>[] asks = [async () => (await app.PostAsync(app.Sns.Bounce(Jane))).Status, () => app.StatusAsync("/suppressed/" + Jane)];
        foreach (var ask in asks)
            for (int times = 0; times < 2; times++) {
                Assert.Equal(200, await ask());
                await Eventually.TrueAsync(async () =>
                    (await PostgresCluster.QueryAsync(cluster.For("postgres"), $"select 1 from pg_stat_activity where datname = '{name}'")).Length == 0);
            }
        Assert.DoesNotContain("cannot be used", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_statement_that_a_pooler_let_go_of_is_prepared_again() {
        await using var app = await StartAsync(await cluster.NewDatabaseAsync());
        var source = app.Services.GetRequiredService<NpgsqlDataSource>();
        Func<Task<int>>[] asks = [async () => (await app.PostAsync(app.Sns.Bounce(Jane))).Status, () => app.StatusAsync("/suppressed/" + Jane)];
        foreach (var ask in asks) {
            for (int times = 0; times < 5; times++) Assert.Equal(200, await ask());
            var connections = new List<NpgsqlConnection>(); // whichever of the idle ones it was prepared on
            for (int count = 0; count < 3; count++) connections.Add(await source.OpenConnectionAsync(TestContext.Current.CancellationToken));
            foreach (var connection in connections) {
                await using (var command = new NpgsqlCommand("deallocate all", connection))
                    await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
                await connection.CloseAsync();
            }
            Assert.Equal(200, await ask());
        }
        Assert.DoesNotContain("cannot be used", app.Log.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_time_before_all_time_is_read_where_the_clock_is_ahead_of_UTC() {
        string database = await cluster.NewDatabaseAsync(), folder = Lines.FolderOf();
        var sns = new FakeSns();
        sns.WriteCertificate(folder);
        using var receiver = await OwnProcess.StartAsync(folder, "ConnectionStrings__Feedback=" + database, "TZ=Asia/Tokyo");
        foreach (string at in (string[])["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z"])
            Assert.True(await receiver.PostAsync(sns.Bounce(Jane, "mail-" + at, at: at)));

        using var history = JsonDocument.Parse(await receiver.Private.GetStringAsync("/history/" + Jane, TestContext.Current.CancellationToken));

        Assert.Equal((string[])["9999", "0001"], history.RootElement.GetProperty("events").EnumerateArray()
            .Select(each => each.GetProperty("at").GetString()![..4]));
        await receiver.StopAsync();
    }

    [Fact]
    public async Task A_server_that_falls_silent_is_told_of_before_SNS_gives_up() {
        await using var own = new PostgresCluster();
        string database = await own.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
        await own.SignalAsync(database, "STOP");
        try {
            async Task<int> PostAsync() => (await app.PostAsync(app.Sns.Bounce(Joe, "mail-0"))).Status;
            Task<int>[] asked = [app.StatusAsync("/suppressed/" + Jane), PostAsync()];
            // As many as go into several batches, which would wait one after the other.
            var commits = Task.WhenAll(Enumerable.Range(0, 2000).Select(number => Store(app).CommitAsync(Manual($"{number}", app.Clock.GetUtcNow()))));
            var found = Task.WhenAll(Enumerable.Range(0, 4000).Select(number => Store(app).FindAsync($"{number}").AsTask()));
            await Task.WhenAll([commits, found, .. asked]).WaitAsync(TimeSpan.FromSeconds(15), TestContext.Current.CancellationToken); // SNS's patience
            Assert.All(asked, status => Assert.Equal(503, status.Result));
            Assert.All(await commits, commit => Assert.Equal(Commit.Unwritable, commit));
            Assert.All(await found, Assert.Null);
        } finally { await own.SignalAsync(database, "CONT"); }
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Joe, "mail-0"))).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Joe));
    }

    [Fact]
    public async Task A_server_that_takes_no_new_row_is_not_healthy_and_to_ask_leaves_no_trace() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        Task<HttpResponseMessage> HealthAsync() => app.Webhook.GetAsync("/health", TestContext.Current.CancellationToken);
        Assert.Equal(200, (int)(await HealthAsync()).StatusCode);
        await RefuseAsync(database, "53100", "insert on entries for each row");
        Assert.Equal((503, 503), ((await app.PostAsync(app.Sns.Bounce(Jane))).Status, (int)(await HealthAsync()).StatusCode));
        await PostgresCluster.ExecuteAsync(database, "drop trigger refuse on entries");
        Assert.Equal(200, (int)(await HealthAsync()).StatusCode);
        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database, "select count(*) from entries"));
    }

    /// <summary>A database with our tables, and the connection string to it of a role that may read and write them.</summary>
    async Task<(string Database, string Role, string Connection)> NewRoleAsync() {
        string database = await cluster.NewDatabaseAsync(), name = database.Split('=')[^1];
        await using (var first = await StartAsync(database)) await first.StopAsync();
        await PostgresCluster.ExecuteAsync(database, $"""
            create role {name} login; grant select, insert, update, delete on all tables in schema public to {name};
            """);
        return (database, name, database.Replace("Username=postgres", "Username=" + name, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Once_the_tables_are_made_a_role_that_may_make_none_is_enough() {
        var (_, name, connection) = await NewRoleAsync();
        await using var app = await StartAsync(connection, Hook);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
        Assert.True(await Store(app).IsWritableAsync());
        Assert.Single(await Store(app).ChangesAsync(10));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        var refusal = await Assert.ThrowsAsync<Refusal>(async () => await StartAsync(
            (await cluster.NewDatabaseAsync()).Replace("Username=postgres", "Username=" + name, StringComparison.Ordinal)));
        Assert.Contains("permission denied", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_role_that_may_not_read_the_servers_settings_is_enough() {
        var (database, _, connection) = await NewRoleAsync();
        await PostgresCluster.ExecuteAsync(database, "revoke all on pg_settings from public");
        await using var app = await StartAsync(connection);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        await using var connected = await app.Services.GetRequiredService<NpgsqlDataSource>()
            .OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand(
            "select current_setting('enable_seqscan') || current_setting('plan_cache_mode') || current_setting('client_min_messages')", connected);
        Assert.Equal("offforce_generic_planwarning", await command.ExecuteScalarAsync(TestContext.Current.CancellationToken));
    }

    [Theory]
    [InlineData("id int")]
    [InlineData("name text primary key, value text")]
    public async Task A_table_of_somebody_else_that_is_called_as_one_of_ours_is_left_alone(string columns) {
        string database = await cluster.NewDatabaseAsync(), name = database.Split('=')[^1];
        await PostgresCluster.ExecuteAsync(database, $"""
            create table meta ({columns}); grant all on meta to public; create role {name} login; create schema {name} authorization {name}
            """);
        for (int starts = 0; starts < 2; starts++) {
            await using var app = await StartAsync(database.Replace("Username=postgres", "Username=" + name, StringComparison.Ordinal));
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        }
        Assert.Equal([$"0 {name}"], await PostgresCluster.QueryAsync(database,
            "select (select count(*) from public.meta), string_agg(schemaname, ' ') from pg_tables where tablename = 'entries'"));
    }

    [Fact]
    public async Task Whose_name_is_a_schemas_too_uses_the_tables_that_are_there() {
        var (database, name, connection) = await NewRoleAsync();
        await PostgresCluster.ExecuteAsync(database, $"create schema {name} authorization {name}");
        await using var app = await StartAsync(connection);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        Assert.Equal(["1"], await PostgresCluster.QueryAsync(database, "select count(*) from public.entries"));
    }

    [Theory]
    [InlineData("")]
    [InlineData("127.0.0.1:1,")] // nobody is there
    public async Task When_all_connections_are_in_use_none_of_them_is_thrown_away(string other) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database.Replace("127.0.0.1;Port=", other + "127.0.0.1:", StringComparison.Ordinal)
            + ";Timeout=2;Maximum Pool Size=14");
        await WhileOneWaitsAsync(database, "lock table unread", () => Task.WhenAll(Enumerable.Range(0, 20).Select(_ => app.StatusAsync("/status"))),
            "select 1", commits: false, count: 14,
            meanwhile: () => Eventually.TrueAsync(() => app.Log.Text.Contains("cannot be used", StringComparison.Ordinal)));
        Assert.Equal(["14"], await PostgresCluster.QueryAsync(database,
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'FeedbackReceiver'"));
    }

    [Fact]
    public async Task Whatever_encoding_a_receiver_is_told_to_speak_an_address_is_the_same_to_all() {
        string database = await cluster.NewDatabaseAsync();
        await using var one = await StartAsync(database + ";Client Encoding=LATIN1");
        await using var two = await StartAsync(database);
        Assert.Equal(200, (await one.PostAsync(one.Sns.Bounce("jos\u00e9@example.com"))).Status);
        Assert.Equal(200, await two.StatusAsync("/suppressed/jos%C3%A9@example.com"));
    }

    [Fact]
    public async Task A_server_is_reached_by_a_socket_in_the_file_system() {
        await using var own = new PostgresCluster { HasSocket = true };
        string database = await own.NewDatabaseAsync();
        await using var app = await StartAsync(own.For(database.Split('=')[^1], bySocket: true));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
    }

    [Theory]
    [InlineData("Host=db", true)]
    [InlineData("Host=db,db2", true)]
    [InlineData("Host=/var/run/postgresql", false)]
    [InlineData("Host=@postgresql", false)]
    [InlineData("Host=db, /var/run/postgresql", false)]
    public void Who_asks_for_long_hears_of_a_dead_host_unless_it_is_this_one(string connection, bool keepsAlive) {
        var settings = PostgresStore.SourceOf(connection)!.ConnectionStringBuilder;
        Assert.Equal((keepsAlive, keepsAlive ? 30 : 0), (settings.TcpKeepAlive, settings.TcpKeepAliveTime));
    }

    [Fact]
    public async Task Of_several_hosts_the_one_that_is_no_standby_is_used_whichever_is_named_first() {
        PostgresCluster[] clusters = [new(), new()];
        string[] databases = [await clusters[0].NewDatabaseAsync(), await clusters[1].NewDatabaseAsync()];
        await clusters[0].BecomeStandbyAsync();
        string[] hosts = Array.ConvertAll(databases, each => "127.0.0.1:" + each.Split("Port=")[1].Split(';')[0]);
        foreach (string both in (string[])[$"{hosts[0]},{hosts[1]}", $"{hosts[1]},{hosts[0]};Target Session Attributes=any", $"{hosts[1]};Target Session Attributes=primary"]) {
            await using var app = await StartAsync($"Host={both};Username=postgres;Database=feedback1");
            Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
            Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
        }
        foreach (var each in clusters) await each.DisposeAsync();
    }

    [Fact]
    public async Task A_single_host_that_has_become_a_standby_answers_nothing_and_refuses_the_start() {
        await using var own = new PostgresCluster();
        string database = await own.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        await own.BecomeStandbyAsync();

        foreach (string path in (string[])["/suppressed/" + Jane, "/suppressed/" + Joe, "/suppressed", "/history/" + Jane])
            Assert.Equal((path, 503), (path, await app.StatusAsync(path)));
        Assert.Equal(503, (await app.PostAsync(app.Sns.Bounce(Joe, "mail-2"))).Status);
        Assert.False(await Store(app).IsWritableAsync());
        var refusal = await Assert.ThrowsAsync<Refusal>(() => StartAsync(database));
        Assert.Matches("^ConnectionStrings:Feedback: .*standby", refusal.Message);
    }

    [Fact]
    public void What_the_events_of_a_message_share_they_share_when_it_is_cleaned() {
        var entry = new Entry(default, new(Envelope.Notification, "id", FakeSns.TopicArn, FakeSns.SesBounce([Jane, Joe])
            .Replace("Your offers", @"\ud83d\ude00\u0000", StringComparison.Ordinal).Replace("november", @"\u0000", StringComparison.Ordinal), "", "2", "", ""));
        Feedback[] events = Array.ConvertAll(PreparedEntry.Of(entry).Events, each => each.Feedback);
        Assert.Equal("\ud83d\ude00\ufffd", events[0].Subject);
        Assert.Same(events[0].Subject, events[1].Subject);
        Assert.Same(events[0].Mail, events[1].Mail);
        Assert.Same(events[0].Tags, events[1].Tags);
    }

    [Fact]
    public async Task What_no_standby_has_is_not_acknowledged_where_one_is_waited_for_though_the_role_wants_no_warnings() {
        await using var own = new PostgresCluster();
        string database = await own.NewDatabaseAsync();
        await PostgresCluster.ExecuteAsync(database, "alter role postgres set client_min_messages = error");
        await using var app = await StartAsync(database + ";Command Timeout=1", "Suppression:SoftBounceLimit=3");
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        Task SetStandbyAsync(string name) => PostgresCluster.ExecuteAsync(own.For("postgres"),
            $"alter system set synchronous_standby_names = '{name}'; select pg_reload_conf()");
        await SetStandbyAsync("away");
        int probes = 0; // the server takes its new setting a moment later
        await Eventually.TrueAsync(async () => (await app.PostAsync(app.Sns.Bounce("probe@example.com", $"mail-probe-{probes++}"))).Status == 503);
        string[] bodies = [app.Sns.Bounce(Joe, "mail-2"), app.Sns.Signed(FakeSns.SesComplaint(["ann@example.com"], "mail-3", "not-spam"))];
        for (int again = 0; again < 2; again++) // a retry finds its row, and must not be told that it is safe
            foreach (string body in bodies) Assert.Equal(503, (await app.PostAsync(body)).Status);
        Assert.False(await Store(app).IsWritableAsync());
        Assert.Equal(Commit.Unwritable, await Store(app).ForgetAsync(Jane));
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
        await SetStandbyAsync("");
        foreach (string body in bodies) Assert.Equal(200, (await app.PostAsync(body)).Status);
        Assert.True(await Store(app).IsWritableAsync());
        Assert.Equal([$"{3 + probes}"], await PostgresCluster.QueryAsync(database, "select sum(n)::bigint from daily"));
    }

    [Fact]
    public async Task A_receiver_that_stands_still_in_a_transaction_does_not_stop_the_others() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await using var other = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        var still = await other.Services.GetRequiredService<NpgsqlDataSource>().OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using (var command = new NpgsqlCommand("begin; select from suppressions for update", still))
            await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);

        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane])))).Status);

        Assert.DoesNotContain("cannot be used", app.Log.Text, StringComparison.Ordinal);
        await Assert.ThrowsAsync<PostgresException>(() => still.DisposeAsync().AsTask()); // it was ended
    }

    [Fact]
    public async Task Long_reading_and_many_who_ask_for_health_leave_connections_for_what_SNS_waits_for() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        await WhileOneWaitsAsync(database, "lock table email_complaints",
            () => Task.WhenAll(Enumerable.Range(0, 40).Select(_ => app.StatusAsync("/history/" + Jane))), "select 1", commits: false, count: 8);
        await WhileOneWaitsAsync(database, "lock table entries",
            () => Task.WhenAll(Enumerable.Range(0, 40).Select(_ => Store(app).IsWritableAsync())), "select 1", commits: false);
        Assert.True(await Store(app).IsWritableAsync());
    }

    [Theory]
    [InlineData("update meta set value = 'xyz' where name = 'forget_key'")]
    [InlineData("update meta set name = 'away' where name = 'forget_key'")]
    [InlineData("update suppressions set known = '[]'")]
    [InlineData("update suppressions set known = 'null'")]
    [InlineData("update suppressions set known = '{}'")]
    [InlineData("""update suppressions set known = '{"reason":"bounce"}'""")] // no member of ours is called so
    public async Task What_is_broken_in_the_tables_is_no_fault_of_a_message_and_nobody_is_called_not_suppressed(string broken) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane))).Status);
        await PostgresCluster.ExecuteAsync(database, "create table saved as table meta; create table saved_too as table suppressions; " + broken);
        string again = app.Sns.Signed(FakeSns.SesComplaint([Jane], "mail-2"));

        Assert.Equal(503, (await app.PostAsync(again)).Status);
        Assert.Equal(503, await app.StatusAsync("/suppressed/" + Jane));
        Assert.Null(await Store(app).FindAsync([Jane]));

        await PostgresCluster.ExecuteAsync(database, "truncate meta, suppressions; insert into meta table saved; insert into suppressions table saved_too");
        Assert.Equal(200, (await app.PostAsync(again)).Status);
        Assert.Equal("complaint", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());
        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database, "select count(*) from unread"));
    }

    [Theory]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{}")]
    public async Task A_row_by_hand_that_does_not_say_what_is_known_is_refused_else_nobody_is_listed(string known) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        Task InsertAsync(string columns, string values) => PostgresCluster.ExecuteAsync(database,
            $"insert into suppressions (email, reason, since{columns}) values ('{Joe}', 'manual', now(){values})");
        Assert.Equal(PostgresErrorCodes.NotNullViolation, (await Assert.ThrowsAsync<PostgresException>(() => InsertAsync("", ""))).SqlState);
        Assert.Equal(200, await app.StatusAsync("/suppressed"));
        await InsertAsync(", known", $", '{known}'");
        Assert.Equal((503, 503, 200), (await app.StatusAsync("/suppressed"), await app.StatusAsync("/suppressed/" + Joe),
            await app.StatusAsync("/suppressed/" + Jane)));
    }

    [Fact]
    public async Task A_row_that_a_hand_has_spoilt_is_503_for_its_own_address_and_for_nobody_who_comes_along() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Joe));
        await PostgresCluster.ExecuteAsync(database, $"update suppressions set reason = null where email = '{Joe}'");
        var others = Enumerable.Range(0, 10).Select(number => $"user{number}@example.com").ToArray();

        var posts = await Task.WhenAll(others.Select((address, number) => app.PostAsync(app.Sns.Bounce(address, $"mail-{number}"))).Append(app.PostAsync(app.Sns.Bounce(Joe, "mail-joe"))));
        Assert.Equal([.. others.Select(_ => 200), 503], posts.Select(post => post.Status));
        var looks = await Task.WhenAll(others.Append(Joe).Select(address => app.StatusAsync("/suppressed/" + address)));
        Assert.Equal([.. others.Select(_ => 200), 503], looks);
        Assert.Null(await Store(app).FindAsync([others[0], Joe]));
    }

    [Fact]
    public async Task A_text_that_an_index_of_somebody_elses_cannot_hold_still_suppresses() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await PostgresCluster.ExecuteAsync(database, "create index on email_bounces (detail)");
        string words = Convert.ToBase64String(System.Security.Cryptography.RandomNumberGenerator.GetBytes(8000));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce([Jane]).Replace("user unknown", words, StringComparison.Ordinal)))).Status);
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
        Assert.StartsWith("smtp; 550 5.1.1 " + words[..100], (await app.HistoryAsync(Jane))[0].GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database, "select count(*) from unread"));
    }

    [Fact]
    public async Task Where_a_policy_hides_rows_from_us_nobody_is_called_not_suppressed() {
        string database = await cluster.NewDatabaseAsync(), role = "reader_" + new NpgsqlConnectionStringBuilder(database).Database;
        await using (var app = await StartAsync(database)) await app.PostAsync(app.Sns.Bounce(Jane));
        await PostgresCluster.ExecuteAsync(database, $"create role {role} login; grant all on all tables in schema public to {role}");
        await using var reader = await StartAsync(database.Replace("Username=postgres", "Username=" + role, StringComparison.Ordinal));
        Assert.Equal(200, await reader.StatusAsync("/suppressed/" + Jane));

        await PostgresCluster.ExecuteAsync(database, "alter table suppressions enable row level security");

        Assert.Equal(503, await reader.StatusAsync("/suppressed/" + Jane));
        Assert.Equal(503, (await reader.PostAsync(reader.Sns.Bounce(Joe))).Status);
        await PostgresCluster.ExecuteAsync(database, "alter table suppressions disable row level security");
        Assert.Equal(200, await reader.StatusAsync("/suppressed/" + Jane));
    }

    [Fact]
    public async Task PostgreSQL_asks_whether_a_receivers_host_is_there_after_five_seconds_without_a_word() {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "only Linux tells of a socket's timer");
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        string[] clients = await PostgresCluster.QueryAsync(database,
            "select client_port from pg_stat_activity where datname = current_database() and application_name = 'FeedbackReceiver'");
        string server = $":{new NpgsqlConnectionStringBuilder(database).Port:X4}";

        // Local address, remote address, state, queues, timer (02 is keepalive's) and in how many hundredths of a second it is due.
        async Task<string[]> TimersAsync() => [.. (await File.ReadAllLinesAsync("/proc/net/tcp", TestContext.Current.CancellationToken)).Skip(1)
            .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Where(socket => socket[1].EndsWith(server, StringComparison.Ordinal) && clients.Contains($"{Convert.ToInt32(socket[2].Split(':')[1], 16)}"))
            .Select(socket => socket[5])];

        await Eventually.TrueAsync(async () => await TimersAsync() is var timers && timers.Length == clients.Length
            && timers.All(timer => timer.StartsWith("02:00000", StringComparison.Ordinal) && Convert.ToInt32(timer[3..], 16) <= 500));
    }

    [Fact]
    public async Task Who_stands_behind_one_that_waited_too_long_for_another_who_is_done_is_kept() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Joe));
        var joe = (await EntriesAsync(database, "id")).Single().Entry;
        await PostgresCluster.ExecuteAsync(database,
            "create table saved as table entries; delete from entries; delete from email_bounces; delete from suppressions");
        Task<(int, string)>? behind = null;

        await WhileOneWaitsAsync(database, "insert into entries table saved",
            async () => Assert.Equal(Commit.Busy, await Store(app).CommitAsync(joe)), "select pg_sleep(2.1)", commits: true, meanwhile: () => {
                behind = app.PostAsync(app.Sns.Bounce(Jane));
                return Task.CompletedTask;
            });

        Assert.Equal((200, "kept"), await behind!);
        Assert.Equal(Commit.Kept, await Store(app).CommitAsync(joe));
    }

    [Fact]
    public async Task Entries_that_are_kept_one_by_one_do_not_each_wait_for_a_server_that_says_nothing() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database + ";Command Timeout=3");
        foreach (int number in Enumerable.Range(0, 4)) await app.PostAsync(app.Sns.Bounce($"a{number}@example.com", $"mail-{number}"));
        var entries = await EntriesAsync(database, "id");
        var store = app.Services.GetRequiredService<PostgresStore>();
        await PostgresCluster.ExecuteAsync(database, $"""
            truncate entries, email_bounces, suppressions, daily, hourly, totals; create sequence tried;
            create function wait() returns trigger language plpgsql as $$ begin
                if new.id = '{entries[0].Id}' then raise exception using errcode = '22000'; end if;
                perform nextval('tried'), pg_sleep(60);
                return new;
            end $$;
            create trigger wait before insert on entries for each row execute function wait()
            """);

        Assert.Equal(Commit.Unwritable, await store.KeepAsync(entries));

        Assert.Equal(["1"], await PostgresCluster.QueryAsync(database, "select last_value from tried"));
        await PostgresCluster.ExecuteAsync(database, "drop trigger wait on entries");
        Assert.Equal(Commit.Kept, await store.KeepAsync(entries));
        Assert.Equal(["4"], await PostgresCluster.QueryAsync(database, "select sum(n)::bigint from daily"));
    }

    [Fact]
    public async Task What_nobody_signed_is_the_same_when_it_comes_again() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        for (int times = 0; times < 2; times++, app.Clock.Advance(TimeSpan.FromMinutes(1)))
            await CommitAsync(app, new Entry(app.Clock.GetUtcNow(), new(Envelope.Notification, "raw:1", "queue", """{"eventType":"?"}""",
                app.Clock.GetUtcNow().ToString("O"), "", "", "")));
        Assert.Equal(["1 1"], await PostgresCluster.QueryAsync(database, "select count(*), (select count(*) from unread) from entries"));
    }

    [Theory]
    [InlineData("""{"a":1,"a":2,"to":"\u006aane@example.com"}""")] // JSON that is read by nobody
    [InlineData("""To \u006aane@example.com""")]
    [InlineData("u=%28jane%40example.com%29 %0Ajane%40example.com %5Bjane%40example.com%5D %7Cjane@example.com%7C")]
    [InlineData("jane%2540example.com =?utf-8?q?jane=40example.com?= jane&#64;example.com jane@example.com- jane@example.com_")]
    public async Task Somebody_forgotten_is_found_in_what_is_no_JSON_and_in_other_spellings(string text) {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce(Jane));
        await app.PostAsync(app.Sns.Signed(text));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        Assert.DoesNotMatch("(?i)jane|006a", await DumpAsync(database));
    }

    [Fact]
    public async Task Somebody_forgotten_is_found_by_a_letter_that_becomes_another_in_lower_case() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await app.PostAsync(app.Sns.Bounce("\u212aate@example.com"));
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync("kate@example.com"));
        Assert.DoesNotMatch("(?i)ate@example", await DumpAsync(database));
    }

    [Fact]
    public async Task Email_events_can_be_partitioned_by_month_afterwards_and_whole_months_dropped() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        var now = DateTimeOffset.UtcNow; // of PostgreSQL's clock, and not of the receiver's
        string[] mails = [$"0100{now.ToUnixTimeMilliseconds():x12}-mail", "0100019a00000000-mail"]; // this month, and October 2025
        string partition = $"email_events_{now:yyyy_MM}";
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane, mails[0])));
        await PostgresCluster.ExecuteAsync(database, File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "partition.sql")));
        foreach (string mail in mails.Append(mails[0])) await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane, mail)));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane, mails[1])));

        Assert.Equal(2, (await app.HistoryAsync(Jane)).Length);
        Assert.Equal(["1"], await PostgresCluster.QueryAsync(database, "select count(*) from " + partition));
        await PostgresCluster.ExecuteAsync(database, "drop table " + partition);
        Assert.Single(await app.HistoryAsync(Jane));
    }

    [Theory]
    [InlineData("grant select, insert, update, delete on email_events to \"{0}\" with grant option")]
    [InlineData("grant all on email_events to public")]
    [InlineData("alter table email_events owner to \"{0}\"")]
    public async Task Whoever_may_use_email_events_may_when_somebody_else_has_partitioned_it(string right) {
        var (database, name, connection) = await NewRoleAsync();
        await PostgresCluster.ExecuteAsync(database, $"""
            revoke all on email_events from {name}; alter role {name} rename to "{name} O'Neill";
            """ + right.Replace("{0}", name + " O'Neill", StringComparison.Ordinal));
        await using var app = await StartAsync(connection.Replace("Username=" + name, $"Username={name} O'Neill", StringComparison.Ordinal));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane)))).Status);
        const string rights = "select acl.* from pg_class, aclexplode(relacl) as acl where pg_class.oid = 'email_events'::regclass order by acl::text";
        string[] before = await PostgresCluster.QueryAsync(database, rights);

        await PostgresCluster.ExecuteAsync(database, File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "partition.sql")));

        Assert.Equal(before, await PostgresCluster.QueryAsync(database, rights));
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane, "mail-2")))).Status);
        Assert.Equal(2, (await app.HistoryAsync(Jane)).Length);
        Assert.Equal(Commit.Kept, await Store(app).ForgetAsync(Jane));
        Assert.Equal(["1"], await PostgresCluster.QueryAsync(database, "select count(distinct relowner) from pg_class where relname like 'email_events%'"));
    }

    [Fact]
    public async Task Behind_a_long_reader_a_partitioning_gives_up_and_changes_nothing() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        string sql = File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "partition.sql"));
        await using (var reader = new NpgsqlConnection(database + ";Pooling=false")) {
            await reader.OpenAsync(TestContext.Current.CancellationToken);
            await using var command = new NpgsqlCommand("begin; select from email_events", reader);
            await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
            var refused = await Assert.ThrowsAsync<PostgresException>(() => PostgresCluster.ExecuteAsync(database + ";Command Timeout=10", sql));
            Assert.Equal(PostgresErrorCodes.LockNotAvailable, refused.SqlState);
        }
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery(Jane)))).Status);
        await PostgresCluster.ExecuteAsync(database, sql);
        Assert.Single(await app.HistoryAsync(Jane));
    }

    [Fact]
    public async Task What_fits_no_partition_is_not_acknowledged_until_one_takes_it() {
        string database = await cluster.NewDatabaseAsync();
        await using var app = await StartAsync(database);
        await PostgresCluster.ExecuteAsync(database, File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "partition.sql")));
        await PostgresCluster.ExecuteAsync(database, "drop table email_events_rest");
        string old = app.Sns.Signed(FakeSns.SesDelivery(Jane, "0100019a00000000-mail")); // of October 2025
        Assert.Equal(503, (await app.PostAsync(old)).Status);
        Assert.Equal(["0 0"], await PostgresCluster.QueryAsync(database, "select count(*), (select count(*) from unread) from entries"));

        await PostgresCluster.ExecuteAsync(database, "create table email_events_rest partition of email_events default");

        Assert.Equal(200, (await app.PostAsync(old)).Status);
        Assert.Single(await app.HistoryAsync(Jane));
        Assert.Equal(["1"], await PostgresCluster.QueryAsync(database, "select sum(n)::bigint from daily"));
    }
}

/// <summary>FeedbackReceiver copy: from the journal of a LiteDB receiver into PostgreSQL.</summary>
public sealed class JournalCopyTests(PostgresCluster cluster) {
    const string Jane = "jane@example.com";

    static async Task<(int Code, string Output)> CopyAsync(string folder, string database, params string[] settings) {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "FeedbackReceiver.dll"),
            "copy", "--Sns:TopicArns:0=" + FakeSns.TopicArn,
            "--Journal:Directory=" + Path.Combine(folder, "journal"), "--ConnectionStrings:Feedback=" + database, .. settings]) {
            RedirectStandardOutput = true, RedirectStandardError = true, WorkingDirectory = folder,
        };
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        string output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return (process.ExitCode, output + await errors);
    }

    static async Task FillAsync(ReceiverApp app, int from) {
        for (int number = from; number < from + 20; number++)
            foreach (string body in (string[])[
                app.Sns.Bounce($"a{number}@example.com", $"mail-{number}", number % 5 == 0 ? "Transient" : "Permanent"),
                app.Sns.Signed(FakeSns.SesComplaint([$"c{number}@example.com"], $"mail-{number}")),
                app.Sns.Signed(FakeSns.SesDelivery($"d{number}@example.com", $"mail-{number}")),
                app.Sns.Signed($"no event {number}")]) Assert.Equal(200, (await app.PostAsync(body)).Status);
        using var lift = await app.Private.DeleteAsync(new Uri($"/suppressed/a{from + 1}@example.com", UriKind.Relative),
            TestContext.Current.CancellationToken);
        using var put = await app.Private.PutAsync(new Uri($"/suppressed/{Jane}", UriKind.Relative),
            new StringContent("""{"note":"by phone"}"""), TestContext.Current.CancellationToken);
    }

    [Fact]
    public async Task Everything_in_the_journal_is_in_PostgreSQL_and_to_copy_again_adds_only_what_came_since() {
        string database = await cluster.NewDatabaseAsync();
        await using var lite = await ReceiverApp.StartAsync();
        await FillAsync(lite, 0);
        var (code, output) = await CopyAsync(lite.Folder, database); // while the other receives
        Assert.True(code == 0, output);
        await FillAsync(lite, 100);
        for (int again = 0; again < 2; again++) (code, output) = await CopyAsync(lite.Folder, database);

        Assert.True(code == 0, output);
        Assert.Matches(@"email_bounces +40 +40\r?\n.*email_complaints +40 +40\r?\n.*email_events +40 +40\r?\n"
            + @"addresses suppressed +71 +71\r?\nunread +40 +40\r?\nAll of the journal", output);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database], lite.Folder, lite.Sns);
        string[] asked = [Jane, "a0@example.com", "a1@example.com", "a2@example.com", "c119@example.com", "d100@example.com"];
        foreach (string address in asked)
            foreach (string path in (string[])["/suppressed/", "/history/"]) {
                var (here, there) = (await lite.GetAsync(path + address), await app.GetAsync(path + address));
                Assert.Equal(here.Status, there.Status);
                Assert.True(JsonElement.DeepEquals(here.Json, there.Json), $"{here.Json}\n{there.Json}");
            }
        Assert.Equal(["120"], await PostgresCluster.QueryAsync(database, "select sum(n)::bigint from daily"));
    }

    [Fact]
    public async Task What_is_no_line_or_half_a_line_is_left_and_told() {
        string database = await cluster.NewDatabaseAsync();
        string folder = Lines.FolderOf([Lines.Bounce(Jane), "rubbish}", ""]);
        File.AppendAllText(Lines.SegmentIn(folder), Lines.Bounce("torn@example.com")[..200]);

        var (code, output) = await CopyAsync(folder, database);

        Assert.Equal((0, true), (code, output.StartsWith("1 entries in ", StringComparison.Ordinal)));
        Assert.Contains(", 1 lines that are none", output, StringComparison.Ordinal);
        Assert.Equal([Jane], await PostgresCluster.QueryAsync(database, "select email from suppressions"));
    }

    [Fact]
    public async Task Whom_the_LiteDB_receiver_forgot_is_known_to_PostgreSQL_too() {
        string database = await cluster.NewDatabaseAsync();
        byte[] key = [.. Enumerable.Range(1, 32).Select(number => (byte)number)];
        string alias = Lines.Alias(key, Jane);
        string folder = Lines.FolderOf($$$"""{"at":"2026-11-24T08:00:00+00:00","forget":{"alias":"{{{alias}}}","known":"""
            + """{"Reason":"complaint","Since":"2026-11-24T07:00:00+00:00"} } }""");
        File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), key);

        var (code, output) = await CopyAsync(folder, database);

        Assert.True(code == 0, output);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database]);
        Assert.Equal("complaint", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());
        key[0]++;
        File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), key);
        (code, output) = await CopyAsync(folder, database);
        Assert.Equal((1, true), (code, output.Contains("people were forgotten under another key", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData(null)]
    [InlineData(0)]
    [InlineData(31)]
    public async Task Without_the_key_of_those_who_were_forgotten_they_are_not_copied(int? length) {
        string database = await cluster.NewDatabaseAsync(), alias = Lines.Alias(new byte[32], Jane);
        string folder = Lines.FolderOf(Lines.Bounce("joe@example.com"), $$$"""{"at":"2026-11-24T08:00:00+00:00","forget":{"alias":"{{{alias}}}","known":"""
            + """{"Reason":"complaint","Since":"2026-11-24T07:00:00+00:00"} } }"""), path = Path.Combine(folder, "journal", "forget.key");
        if (length is { } some) File.WriteAllBytes(path, new byte[some]);
        var (code, output) = await CopyAsync(folder, database);
        Assert.Equal((1, true), (code, output.Contains("forget.key is missing or damaged", StringComparison.Ordinal)));
        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database, "select count(*) from suppressions where email like 'forgotten:%'"));

        File.WriteAllBytes(path, new byte[32]);
        Assert.Equal(0, (await CopyAsync(folder, database)).Code);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database]);
        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
    }

    [Fact]
    public async Task A_journal_with_a_segment_missing_is_not_copied() {
        string database = await cluster.NewDatabaseAsync(), folder = Lines.FolderOf(Lines.Bounce("joe@example.com"));
        File.Move(Lines.SegmentIn(folder), Journal.PathOf(Path.Combine(folder, "journal"), 2));
        var (code, output) = await CopyAsync(folder, database);
        Assert.Equal((1, true), (code, output.Contains("segments", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("bounce", "bounce")]
    [InlineData("complaint", "complaint")]
    [InlineData("unsubscribed", "bounce")]
    [InlineData("by hand", "bounce")]
    [InlineData("before", null)] // the lift was of this, too
    [InlineData("soft", null)]
    [InlineData("not spam", null)]
    [InlineData("nothing", null)]
    public async Task A_lift_that_is_copied_late_leaves_whom_PostgreSQL_has_heard_of_since(string since, string? reason) {
        string database = await cluster.NewDatabaseAsync(), bounce = Lines.Bounce(Jane),
            lift = """{"at":"2026-11-24T08:00:00+00:00","lift":{"address":"jane@example.com"} }""" + "\n";
        Assert.Equal(0, (await CopyAsync(Lines.FolderOf(bounce), database)).Code);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database]);
        app.Clock.Advance(TimeSpan.FromMinutes(30));
        const string now = "2026-11-24T08:30:00Z";
        if (since == "by hand")
            Assert.Equal(Commit.Kept, await app.Services.GetRequiredService<IFeedbackStore>()
                .CommitAsync(new Entry(app.Clock.GetUtcNow(), Suppress: new(Jane, Reason.Manual))));
        else if (since != "nothing")
            Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(since switch {
                "bounce" => FakeSns.SesBounce([Jane], "mail-2", at: now),
                "complaint" => FakeSns.SesComplaint([Jane], "mail-2", at: now),
                "before" => FakeSns.SesComplaint([Jane], "mail-2"),
                "soft" => FakeSns.SesBounce([Jane], "mail-2", "Transient", at: now),
                "not spam" => FakeSns.SesComplaint([Jane], "mail-2", "not-spam", now),
                _ => $$$"""
                    {"eventType":"Subscription","subscription":{"timestamp":"{{{now}}}","newTopicPreferences":{"unsubscribeAll":true}},
                    "mail":{"messageId":"mail-2","destination":["{{{Jane}}}"]} }
                    """,
            }))).Status);

        var (code, output) = await CopyAsync(Lines.FolderOf(bounce, lift), database);

        Assert.True(code == 0, output);
        Assert.Equal(reason is not null, output.Contains("1 addresses that the journal lifted were heard of", StringComparison.Ordinal));
        var (status, known) = await app.GetAsync("/suppressed/" + Jane);
        Assert.Equal((reason is null ? 404 : 200, reason), (status, reason is null ? null : known.GetProperty("reason").GetString()));
        // Once the lift is there, what comes afterwards is no news to `copy`.
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], "mail-3", at: now)))).Status);
        (code, output) = await CopyAsync(Lines.FolderOf(bounce, lift), database);
        Assert.Equal(reason is not null, output.Contains("heard of", StringComparison.Ordinal));
        Assert.Equal("complaint", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());
    }

    [Fact]
    public async Task No_key_is_brought_while_somebody_is_forgotten_under_another() {
        string database = await cluster.NewDatabaseAsync(), folder = Lines.FolderOf(Lines.Bounce(Jane));
        await using (var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database])) await app.StopAsync();
        File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), new byte[32]);
        await PostgresTests.WhileOneWaitsAsync(database, "insert into suppressions (email, known) values ('forgotten:joe', '{}')", async () => {
            var (code, output) = await CopyAsync(folder, database);
            Assert.True(code == 1 && output.Contains("people were forgotten under another key", StringComparison.Ordinal), output);
        }, "select 1", commits: true);
    }

    [Theory]
    [InlineData("complaint")]
    [InlineData("bounce")] // which makes no difference to what is known, but came later
    [InlineData(null)]
    public async Task Whom_the_journal_forgot_as_lifted_stays_suppressed_when_PostgreSQL_has_heard_of_them_since(string? since) {
        string database = await cluster.NewDatabaseAsync();
        byte[] key = new byte[32];
        string alias = Lines.Alias(key, Jane);
        string[] lines = [
            $$$"""{"at":"2026-11-24T08:00:00+00:00","forget":{"alias":"{{{alias}}}","known":{"Reason":"bounce","Since":"2026-11-24T07:00:00+00:00"} } }""" + "\n",
            $$$"""{"at":"2026-11-24T08:10:00+00:00","forget":{"alias":"{{{alias}}}","known":{"LiftedAt":"2026-11-24T08:09:00+00:00"} } }""" + "\n"];
        string[] folders = [Lines.FolderOf(lines[0]), Lines.FolderOf(lines)];
        foreach (string folder in folders) File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), key);
        Assert.Equal(0, (await CopyAsync(folders[0], database)).Code);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database]);
        const string at = "2026-11-24T08:30:00Z";
        if (since is not null)
            Assert.Equal(200, (await app.PostAsync(since == "bounce" ? app.Sns.Bounce(Jane, at: at)
                : app.Sns.Signed(FakeSns.SesComplaint([Jane], at: at)))).Status);

        var (code, output) = await CopyAsync(folders[1], database);

        Assert.Equal((0, since is not null), (code, output.Contains("1 addresses that the journal lifted", StringComparison.Ordinal)));
        Assert.Equal(since is null ? 404 : 200, await app.StatusAsync("/suppressed/" + Jane));
    }

    [Fact]
    public async Task Whom_the_journal_forgot_as_lifted_is_asked_about_though_nothing_of_the_journal_is_there_yet() {
        string database = await cluster.NewDatabaseAsync(), folder = Lines.FolderOf($$$"""
            {"at":"2026-11-24T08:10:00+00:00","forget":{"alias":"{{{Lines.Alias(new byte[32], Jane)}}}","known":{"LiftedAt":"2026-11-24T08:09:00+00:00"} } }
            """ + "\n");
        File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), new byte[32]);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database]);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Bounce(Jane, at: "2026-11-24T08:30:00Z"))).Status);

        var (code, output) = await CopyAsync(folder, database);

        Assert.True(code == 0 && output.Contains("1 addresses that the journal lifted", StringComparison.Ordinal), output);
        Assert.Equal([Jane], await PostgresCluster.QueryAsync(database, "select email from suppressions"));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task What_is_acknowledged_while_a_lift_is_copied_stays(bool forgotten) {
        string database = await cluster.NewDatabaseAsync(), alias = Lines.Alias(new byte[32], Jane);
        string first = forgotten
            ? $$$"""{"at":"2026-11-24T07:30:00+00:00","forget":{"alias":"{{{alias}}}","known":{"Reason":"bounce","Since":"2026-11-24T07:00:00+00:00"} } }""" + "\n"
            : Lines.Bounce(Jane);
        string lift = forgotten
            ? $$$"""{"at":"2026-11-24T08:00:00+00:00","forget":{"alias":"{{{alias}}}","known":{"LiftedAt":"2026-11-24T07:59:00+00:00"} } }""" + "\n"
            : """{"at":"2026-11-24T08:00:00+00:00","lift":{"address":"jane@example.com"} }""" + "\n";
        string[] folders = [Lines.FolderOf(first), Lines.FolderOf(first, lift)];
        foreach (string folder in folders) File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), new byte[32]);
        Assert.Equal(0, (await CopyAsync(folders[0], database)).Code);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database]);
        var id = PreparedEntry.Of(Entry.Read(System.Text.Encoding.UTF8.GetBytes(lift))!).Id;

        await PostgresTests.WhileOneWaitsAsync(database, $"insert into entries (id, at) values ('{id}', now())", async () => {
            var (_, output) = await CopyAsync(folders[1], database);
            Assert.Contains("1 addresses that the journal lifted were heard of", output, StringComparison.Ordinal);
        }, "select 1", commits: false, meanwhile: async () =>
            Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], "mail-2", at: "2026-11-24T08:30:00Z")))).Status));

        Assert.Equal(200, await app.StatusAsync("/suppressed/" + Jane));
    }

    [Fact]
    public async Task Nobody_is_forgotten_under_a_key_that_another_copy_has_taken_the_place_of() {
        string database = await cluster.NewDatabaseAsync();
        byte[][] keys = [new byte[32], [.. Enumerable.Repeat((byte)1, 32)]];
        string[] folders = [Lines.FolderOf(Lines.Bounce("joe@example.com"),
            $$$"""{"at":"2026-11-24T08:00:00+00:00","forget":{"alias":"{{{Lines.Alias(keys[0], Jane)}}}","known":{"Reason":"complaint","Since":"2026-11-24T07:00:00+00:00"} } }""" + "\n"),
            Lines.FolderOf(Lines.Bounce("other@example.com", "mail-b"))];
        foreach (var (folder, key) in folders.Zip(keys)) File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), key);
        await using (var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database])) await app.StopAsync();
        var id = PreparedEntry.Of(Entry.Read(System.Text.Encoding.UTF8.GetBytes(Lines.Bounce("joe@example.com")))!).Id;

        await PostgresTests.WhileOneWaitsAsync(database, $"insert into entries (id, at) values ('{id}', now())", async () => {
            var (code, output) = await CopyAsync(folders[0], database);
            Assert.True(code == 1 && output.Contains("people were forgotten under another key", StringComparison.Ordinal), output);
        }, "select 1", commits: false, meanwhile: async () => Assert.Equal(0, (await CopyAsync(folders[1], database)).Code));

        Assert.Equal(["0"], await PostgresCluster.QueryAsync(database, "select count(*) from suppressions where email like 'forgotten:%'"));
    }

    [Fact]
    public async Task A_lift_of_somebody_forgotten_is_told_apart_from_what_the_journal_says_just_before_it() {
        string database = await cluster.NewDatabaseAsync(), alias = Lines.Alias(new byte[32], Jane);
        string[] lines = [
            $$$"""{"at":"2026-11-24T08:00:00+00:00","forget":{"alias":"{{{alias}}}","known":{"Reason":"bounce","Since":"2026-11-24T07:00:00+00:00"} } }""" + "\n",
            """{"at":"2026-11-24T08:05:00+00:00","suppress":{"address":"jane@example.com","reason":"manual","note":"by phone"} }""" + "\n",
            """{"at":"2026-11-24T08:10:00+00:00","lift":{"address":"jane@example.com"} }""" + "\n"];
        string[] folders = [Lines.FolderOf(lines[0]), Lines.FolderOf(lines)];
        foreach (string folder in folders) File.WriteAllBytes(Path.Combine(folder, "journal", "forget.key"), new byte[32]);
        foreach (string folder in folders) Assert.Equal(0, (await CopyAsync(folder, database)).Code);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database]);
        Assert.Equal(404, await app.StatusAsync("/suppressed/" + Jane));
    }

    [Fact]
    public async Task Who_was_forgotten_in_PostgreSQL_stays_suppressed_when_a_lift_is_copied_late() {
        string database = await cluster.NewDatabaseAsync(), bounce = Lines.Bounce(Jane),
            lift = """{"at":"2026-11-24T08:00:00+00:00","lift":{"address":"jane@example.com"} }""" + "\n";
        Assert.Equal(0, (await CopyAsync(Lines.FolderOf(bounce), database)).Code);
        await using var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database]);
        Assert.Equal(200, (await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint([Jane], at: "2026-11-24T08:30:00Z")))).Status);
        Assert.Equal(Commit.Kept, await app.Services.GetRequiredService<IFeedbackStore>().ForgetAsync(Jane));

        var (code, output) = await CopyAsync(Lines.FolderOf(bounce, lift), database);

        Assert.Equal((1, true), (code, output.Contains("1 addresses that the journal lifted", StringComparison.Ordinal))); // of the bounce there is less
        Assert.Equal("complaint", (await app.GetAsync("/suppressed/" + Jane)).Json.GetProperty("reason").GetString());
    }

    [Fact]
    public async Task What_is_copied_is_told_to_no_hook() {
        string database = await cluster.NewDatabaseAsync();
        var (code, output) = await CopyAsync(Lines.FolderOf([Lines.Bounce(Jane)]), database, "--Hook:Url=http://localhost:9",
            "--Hook:Secret=whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        Assert.True(code == 0, output);
        Assert.Equal(["1 0"], await PostgresCluster.QueryAsync(database, "select count(*), (select count(*) from changes) from suppressions"));
    }

    [Fact]
    public async Task Giants_are_copied_a_few_at_a_time() {
        string database = await cluster.NewDatabaseAsync(), giant = new('x', PostgresStore.MostCharacters / 2);
        var (code, output) = await CopyAsync(Lines.FolderOf(Enumerable.Range(0, 3).Select(number =>
            Lines.Bounce(Jane, $"mail-{number}").Replace("Your offers", giant, StringComparison.Ordinal))), database);
        Assert.True(code == 0, output);
        Assert.Equal(["3 2"], await PostgresCluster.QueryAsync(database, "select count(*), count(distinct xmin::text) from entries"));
    }

    [Fact]
    public async Task What_copy_asks_of_a_lift_may_take_longer_than_SNS_waits() {
        string database = await cluster.NewDatabaseAsync();
        await using (var app = await ReceiverApp.StartAsync(["ConnectionStrings:Feedback=" + database])) await app.StopAsync();
        string folder = Lines.FolderOf("""{"at":"2026-11-24T08:00:00+00:00","lift":{"address":"jane@example.com"} }""");
        await PostgresTests.WhileOneWaitsAsync(database, "lock table email_bounces", async () => {
            var (code, output) = await CopyAsync(folder, database + ";Command Timeout=1");
            Assert.True(code == 0, output);
        }, "select pg_sleep(1.2)", commits: false);
    }

    [Fact]
    public void A_line_that_grows_while_it_is_read_is_left_for_the_next_time() {
        string path = Path.Combine(Lines.FolderOf(), "growing");
        string line = Lines.Bounce(Jane);
        File.WriteAllText(path, line + line[..200]);
        var read = JournalCopy.LinesOf(path).Select(each => System.Text.Encoding.UTF8.GetString(each.Span)).GetEnumerator();
        Assert.True(read.MoveNext());
        Assert.Equal(line.TrimEnd(), read.Current);
        File.AppendAllText(path, line[200..]);
        Assert.False(read.MoveNext());
        read.Dispose();
    }

    [Fact]
    public async Task Without_a_journal_or_a_database_the_copy_says_what_is_missing() {
        string folder = Directory.CreateTempSubdirectory("receiver-").FullName;
        var (code, output) = await CopyAsync(folder, "Filename=feedback.db");
        Assert.Equal((1, "FeedbackReceiver: copy: ConnectionStrings:Feedback is where to copy to: Host=...;Database=...;Username=..."),
            (code, output.Trim()));
        (code, output) = await CopyAsync(folder, await cluster.NewDatabaseAsync());
        Assert.Equal(1, code);
        Assert.Contains("there is no journal in Journal:Directory", output, StringComparison.Ordinal);
    }
}
