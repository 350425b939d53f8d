/// <summary>The same facts, against PostgreSQL.</summary>
public sealed class PostgresContractTests(PostgresCluster cluster) : StoreContractTests {
    private protected override async Task<string[]> NewStoreAsync(string folder) => ["ConnectionStrings:Feedback=" + await cluster.NewDatabaseAsync()];
}
