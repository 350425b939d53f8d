using System.Net;
using System.Text.Json;

/// <summary>GET /suppressed: the list.</summary>
public sealed class ListTests {
    static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    static async Task<HttpResponseMessage> SendAsync(ReceiverApp app, string path, string method = "GET", string? ifNoneMatch = null) {
        using var request = new HttpRequestMessage(new HttpMethod(method), path);
        if (ifNoneMatch is not null) request.Headers.TryAddWithoutValidation("If-None-Match", ifNoneMatch);
        return await app.Private.SendAsync(request, Cancellation);
    }

    static async Task<string> TextAsync(ReceiverApp app, string path) => await app.Private.GetStringAsync(path, Cancellation);

    static async Task<int> StatusAsync(ReceiverApp app, string path, string method = "GET", string? ifNoneMatch = null) {
        using var response = await SendAsync(app, path, method, ifNoneMatch);
        return (int)response.StatusCode;
    }

    static async Task<string[]> AddressesAsync(ReceiverApp app, string path) =>
        [.. (await app.GetAsync(path)).Json.GetProperty("suppressed").EnumerateArray().Select(each => each.GetProperty("address").GetString()!)];

    static Task<HttpResponseMessage> PutAsync(ReceiverApp app, string address, string? note = null) => app.Private.PutAsync("/suppressed/" + Uri.EscapeDataString(address),
        new StringContent(note is null ? "" : JsonSerializer.Serialize(new { note })), Cancellation);

    /// <summary>A bounce of b@, a complaint of a@, and c@ by hand.</summary>
    static async Task<ReceiverApp> OfThreeAsync() {
        var app = await ReceiverApp.StartAsync();
        await app.PostAsync(app.Sns.Bounce("b@example.com"));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesComplaint(["a@example.com"], at: "2026-11-23T07:00:00Z")));
        await PutAsync(app, "c@example.com", "asked by phone");
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery("free@example.com")));
        return app;
    }

    [Theory]
    [InlineData("json", 200)]
    [InlineData("csv", 505)]
    [InlineData("ses", 505)]
    public async Task Who_could_not_tell_that_a_list_broke_off_is_given_none(string format, int status) {
        await using var app = await OfThreeAsync();
        using var request = new HttpRequestMessage(HttpMethod.Get, "/suppressed?format=" + format) { Version = HttpVersion.Version10 };
        using var response = await app.Private.SendAsync(request, Cancellation);
        Assert.Equal((status, format == "json" ? "application/json" : "application/problem+json"), ((int)response.StatusCode, response.Content.Headers.ContentType?.MediaType));
    }

    [Fact]
    public async Task The_list_says_of_each_address_what_a_look_up_says_in_the_order_of_addresses() {
        await using var app = await OfThreeAsync();

        var (status, json) = await app.GetAsync("/suppressed");

        Assert.Equal((200, JsonValueKind.Null), (status, json.GetProperty("next").ValueKind));
        Assert.Equal(["a@example.com", "b@example.com", "c@example.com"], await AddressesAsync(app, "/suppressed"));
        foreach (var entry in json.GetProperty("suppressed").EnumerateArray()) {
            var answer = (await app.GetAsync("/suppressed/" + entry.GetProperty("address").GetString())).Json;
            Assert.Equal(["address", "reason", "since", "because", "note", "event"], entry.EnumerateObject().Select(each => each.Name));
            foreach (var member in entry.EnumerateObject()) Assert.Equal(answer.GetProperty(member.Name).GetRawText(), member.Value.GetRawText());
        }
    }

    [Theory]
    [InlineData("", """{"suppressed":[],"next":null}""")]
    [InlineData("?format=json&limit=5", """{"suppressed":[],"next":null}""")]
    [InlineData("?format=csv", "address,reason,since,because,note,event\n")]
    [InlineData("?format=ses", "")]
    public async Task An_empty_list_is_a_list(string query, string expected) {
        await using var app = await ReceiverApp.StartAsync();
        Assert.Equal(expected, await TextAsync(app, "/suppressed" + query));
    }

    [Theory]
    [InlineData("reason=bounce", "b@example.com")]
    [InlineData("reason=unsubscribe", "")]
    [InlineData("since=2026-11-24", "b@example.com c@example.com")]
    [InlineData("since=2026-11-24T07:00:00.001Z", "c@example.com")]
    [InlineData("since=2026-11-24T07:00:00Z&reason=bounce", "b@example.com")]
    [InlineData("since=2030-01-01", "")]
    [InlineData("after=a@example.com", "b@example.com c@example.com")]
    [InlineData("after=a@example.co", "a@example.com b@example.com c@example.com")]
    [InlineData("after=%00%ff", "a@example.com b@example.com c@example.com")]
    [InlineData("after=%f0%9f%98%80", "")]
    [InlineData("limit=1", "a@example.com")]
    [InlineData("limit=1&after=a@example.com&reason=manual", "c@example.com")]
    public async Task Filters_narrow_it(string query, string addresses) {
        await using var app = await OfThreeAsync();
        Assert.Equal(addresses, string.Join(' ', await AddressesAsync(app, "/suppressed?" + query)));
    }

    [Theory]
    [InlineData("?limit=0")]
    [InlineData("?limit=-1")]
    [InlineData("?limit=100001")]
    [InlineData("?limit=one")]
    [InlineData("?format=xml")]
    [InlineData("?reason=spam")]
    [InlineData("?since=yesterday")]
    [InlineData("?since=2026-13-01")]
    [InlineData("/")]
    public async Task What_is_wrong_in_the_question_is_400_and_told(string query) {
        await using var app = await OfThreeAsync();
        using var response = await SendAsync(app, "/suppressed" + query);
        Assert.Equal((HttpStatusCode.BadRequest, "application/problem+json"), (response.StatusCode, response.Content.Headers.ContentType?.MediaType));
        Assert.Equal(200, await StatusAsync(app, "/suppressed?limit=100000"));
    }

    [Theory]
    [InlineData("json")]
    [InlineData("csv")]
    [InlineData("ses")]
    public async Task Page_after_page_is_the_whole_list_once(string format) {
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOfBounces(25));
        string whole = await TextAsync(app, $"/suppressed?format={format}");
        var pages = new List<string>();
        string? path = $"/suppressed?format={format}&limit=10&since=2026-01-01";
        while (path is not null) {
            using var response = await SendAsync(app, path);
            pages.Add(await response.Content.ReadAsStringAsync(Cancellation));
            path = response.Headers.TryGetValues("Link", out var links) ? links.Single().Split('>')[0][1..] : null;
            if (format == "json") Assert.Equal(path is null, JsonElement.Parse(pages[^1]).GetProperty("next").ValueKind == JsonValueKind.Null);
        }

        Assert.Equal(3, pages.Count);
        string[] Named(string text) => [.. System.Text.RegularExpressions.Regex.Matches(text, "a[0-9]+@example.com(?=[\",]+(BOUNCE|reason|bounce))").Select(match => match.Value)];
        Assert.Equal(25, Named(whole).Length);
        Assert.Equal(Named(whole), pages.SelectMany(Named));
    }

    [Fact]
    public async Task More_than_the_first_thousand_come_in_order_and_once() {
        string[] lines = [.. Enumerable.Range(0, 2500).Select(number => Lines.Suppress($"a{number * 7 % 2500:0000}@example.com"))];
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOf(lines));

        Assert.Equal(Enumerable.Range(0, 2500).Select(number => $"a{number:0000}@example.com"), await AddressesAsync(app, "/suppressed"));
        Assert.Equal(Enumerable.Range(999, 2).Select(number => $"a{number:0000}@example.com"),
            await AddressesAsync(app, "/suppressed?limit=2&after=a0998@example.com"));
        Assert.Equal(1500, (await AddressesAsync(app, "/suppressed?limit=1500")).Length);
    }

    [Fact]
    public async Task It_is_told_304_until_the_suppressions_change() {
        await using var app = await OfThreeAsync();
        async Task<string> TagAsync() {
            using var response = await SendAsync(app, "/suppressed?format=csv");
            return response.Headers.ETag!.ToString();
        }
        string tag = await TagAsync();

        Assert.Equal(304, await StatusAsync(app, "/suppressed?format=csv", ifNoneMatch: tag));
        Assert.Equal(304, await StatusAsync(app, "/suppressed?format=csv", ifNoneMatch: $"\"other\", W/{tag}"));
        Assert.Equal(304, await StatusAsync(app, "/suppressed?format=csv", ifNoneMatch: "*"));
        Assert.Equal(200, await StatusAsync(app, "/suppressed?format=csv", ifNoneMatch: "\"other\", rubbish"));
        await app.PostAsync(app.Sns.Signed(FakeSns.SesDelivery("free@example.com", "mail-2")));
        Assert.Equal(304, await StatusAsync(app, "/suppressed?format=csv", ifNoneMatch: tag));

        var tags = new HashSet<string> { tag };
        await PutAsync(app, "d@example.com");
        Assert.True(tags.Add(await TagAsync()));
        await PutAsync(app, "d@example.com", "a note");
        Assert.True(tags.Add(await TagAsync()));
        await app.Private.DeleteAsync("/suppressed/d@example.com", Cancellation);
        Assert.True(tags.Add(await TagAsync()));
        Assert.Equal(200, await StatusAsync(app, "/suppressed?format=csv", ifNoneMatch: tag));
    }

    [Fact]
    public async Task A_soft_bounce_that_suppresses_nobody_changes_no_tag() {
        await using var app = await ReceiverApp.StartAsync(["Suppression:SoftBounceLimit=3"]);
        using var before = await SendAsync(app, "/suppressed");
        await app.PostAsync(app.Sns.Bounce("soft@example.com", type: "Transient", subType: "MailboxFull"));
        Assert.Equal(304, await StatusAsync(app, "/suppressed", ifNoneMatch: before.Headers.ETag!.ToString()));
    }

    [Fact]
    public async Task The_Link_header_is_the_same_question_for_the_page_after() {
        await using var app = await OfThreeAsync();
        await app.PostAsync(app.Sns.Bounce("d@example.com", "mail-3"));
        using var response = await SendAsync(app, "/suppressed?limit=1&since=2026-01-01&reason=bounce&format=csv");
        Assert.Equal("</suppressed?format=csv&reason=bounce&since=2026-01-01&limit=1&after=b@example.com>; rel=\"next\"", response.Headers.GetValues("Link").Single());
    }

    [Fact]
    public async Task A_tag_of_before_a_restart_is_not_taken_for_one_of_after() {
        await using var app = await OfThreeAsync();
        using var response = await SendAsync(app, "/suppressed");
        await app.StopAsync();
        await using var again = await ReceiverApp.StartAsync(folder: app.Folder);
        Assert.Equal(200, await StatusAsync(again, "/suppressed", ifNoneMatch: response.Headers.ETag!.ToString()));
    }

    [Theory]
    [InlineData("/suppressed?limit=1", "application/json")]
    [InlineData("/suppressed?format=csv", "text/csv")]
    public async Task HEAD_answers_what_GET_answers_without_the_list(string path, string type) {
        await using var app = await OfThreeAsync();
        using var get = await SendAsync(app, path);
        using var head = await SendAsync(app, path, "HEAD");
        Assert.Equal((HttpStatusCode.OK, type), (head.StatusCode, head.Content.Headers.ContentType?.MediaType));
        Assert.Equal(get.Headers.ETag, head.Headers.ETag);
        Assert.Equal(get.Headers.Contains("Link"), head.Headers.Contains("Link"));
        Assert.Empty(await head.Content.ReadAsStringAsync(Cancellation));
    }

    [Fact]
    public async Task For_SES_there_are_lines_of_address_and_BOUNCE_or_COMPLAINT_and_nothing_that_it_could_misread() {
        await using var app = await OfThreeAsync();
        string[] odd = ["\"jane, doe\"@example.com", "jos\u00e9@example.com", "o'neil@example.com", "a@m\u00fcnchen.example", "+tag@example.com", "nobody", new string('a', 400) + "@example.com"];
        await app.PostAsync(app.Sns.Signed(FakeSns.SesBounce(odd)));

        Assert.Equal("+tag@example.com,BOUNCE\na@example.com,COMPLAINT\na@xn--mnchen-3ya.example,BOUNCE\nb@example.com,BOUNCE\n",
            await TextAsync(app, "/suppressed?format=ses"));
    }

    [Fact]
    public async Task Soft_bounces_are_bounces_to_SES() {
        await using var app = await ReceiverApp.StartAsync(["Suppression:SoftBounceLimit=1"]);
        await app.PostAsync(app.Sns.Bounce("soft@example.com", type: "Transient", subType: "MailboxFull"));
        Assert.Equal("soft@example.com,BOUNCE\n", await TextAsync(app, "/suppressed?format=ses"));
    }

    [Theory]
    [InlineData("=1+1", "'=1+1")]
    [InlineData("+1", "'+1")]
    [InlineData("-1", "'-1")]
    [InlineData("@SUM(A1)", "'@SUM(A1)")]
    [InlineData("\t=1", "\"'\t'=1\"")]
    [InlineData("\r=1", "\"'\r'=1\"")]
    [InlineData("a;=1", "\"a;'=1\"")]
    [InlineData("a;\"=1", "\"a;\"\"'=1\"")]
    [InlineData("a\n=1", "\"a\n'=1\"")]
    [InlineData("a=1", "a=1")]
    [InlineData("say \"yes\"", "\"say \"\"yes\"\"\"")]
    [InlineData("say \"yes\", twice", "\"say \"\"yes\"\", twice\"")]
    public async Task In_CSV_nothing_runs_when_a_spreadsheet_opens_it(string note, string cell) {
        await using var app = await ReceiverApp.StartAsync();
        await PutAsync(app, "=jane@example.com", note);
        Assert.Equal("address,reason,since,because,note,event\n'=jane@example.com,manual,2026-11-24T08:00:00.0000000Z,"
            + $"It was suppressed by hand.,{cell},\n", await TextAsync(app, "/suppressed?format=csv"));
    }

    [Fact]
    public async Task While_the_journal_is_read_there_is_no_list_rather_than_part_of_one() {
        using var reading = new HeldLog("reading the journal");
        await using var app = await ReceiverApp.StartAsync(folder: Lines.FolderOfBounces(20_000), with: reading.Hold);
        using var released = reading.Reached; // a receiver that is held cannot stop
        await reading.Reached.ReachedAsync();
        foreach (string query in (string[])["", "?limit=1", "?format=ses"]) Assert.Equal(503, await StatusAsync(app, "/suppressed" + query));
        Assert.Equal(503, await StatusAsync(app, "/suppressed", "HEAD"));
        reading.Reached.LetGo();
        await Eventually.TrueAsync(async () => await StatusAsync(app, "/suppressed") == 200);
        Assert.Equal(20_000, (await AddressesAsync(app, "/suppressed")).Length);
    }

    [Fact]
    public async Task Who_has_no_key_gets_no_list_and_changes_none() {
        await using var app = await OfThreeAsync();
        foreach (var (method, path) in ((string, string)[])[("GET", "/suppressed"), ("POST", "/suppressed"), ("POST", "/sendable"), ("DELETE", "/history/b@example.com")]) {
            using var request = new HttpRequestMessage(new HttpMethod(method), path);
            using var response = await app.Webhook.SendAsync(request, Cancellation);
            Assert.Equal(HttpStatusCode.NotFound, response.StatusCode);
        }
        Assert.Single(await app.HistoryAsync("b@example.com"));
    }
}
